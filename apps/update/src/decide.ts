import { type ChannelAnswer, compareVersions, type RebootTurn, type RolloutRecord } from '@kiln/schemas'

export type Slot = 'a' | 'b'

/** What runs now: from the kernel arguments, the `installed` marker and the entry on the ESP. */
export type Booted = {
  version: string
  generation: number
  slot: Slot
  bootId: string
  /** The booted entry still counts its tries: nobody has blessed this boot. */
  onTrial: boolean
}

export type Failure = { version: string; generation: number; reason: string; at: string }

/** What the daemon keeps across reboots, `/var/lib/kiln/update/state.json`. */
export type UpdateState = {
  formatVersion: 1
  /** Highest install generation ever used on this disk; the next install takes one more. */
  generationMax: number
  /** A release that is completely in the inactive slot, its entry written. */
  staged?: { version: string; generation: number; slot: Slot }
  /** Written just before the reboot into a staged release; `bootId` is the boot that asked for it. */
  attempt?: { version: string; generation: number; bootId: string }
  failures: Failure[]
}

/** Everything one decision looks at. Absent `channel` or `turn` mean there is none; `unreachable` means nobody could say. */
export type View = {
  machine: string
  nowMs: number
  booted: Booted
  state: UpdateState
  /** All problems the health gate sees now; empty means green. */
  gateProblems: string[]
  channel: ChannelAnswer | undefined | 'unreachable'
  rollout: RolloutRecord | undefined | 'unreachable'
  /** The turn of this group: who may be down for a reboot. Held without a lease. */
  turn: RebootTurn | undefined | 'unreachable'
  /** Another machine's turn belongs to a rollout that is halted already, or nobody can say. */
  turnHalted: boolean
  /** Why the voters of the store do not allow one of them to leave; empty means all are healthy and caught up. */
  voterProblems: string[]
  windowOpen: boolean
  /** Leadership, services and pods of this machine are handed over: it may go. */
  drained: boolean
  /** The version a halt that we recorded ourselves still has to be announced for. */
  unannounced: Failure | undefined
}

export type Action =
  | { kind: 'wait'; why: string }
  | { kind: 'bless' }
  | { kind: 'record-fallback'; version: string; generation: number }
  | { kind: 'announce-failure'; failure: Failure }
  | { kind: 'release-turn'; why: string }
  | { kind: 'install'; version: string; slot: Slot }
  | { kind: 'take-turn'; version: string; generation: number }
  | { kind: 'drain' }
  | { kind: 'reboot'; version: string; generation: number }
  | { kind: 'halt-stale'; turn: RebootTurn }

/**
 * The next step of this machine's update. Every action may be repeated after a crash: the same view gives the
 * same action until it has had its effect.
 */
export function decide(view: View): Action {
  const { booted, state } = view

  // A boot that came back with an older generation than the one it tried has fallen back.
  const attempt = state.attempt
  if (attempt && attempt.bootId !== booted.bootId && booted.generation < attempt.generation)
    return { kind: 'record-fallback', version: attempt.version, generation: attempt.generation }

  if (booted.onTrial) {
    if (view.gateProblems.length > 0)
      return { kind: 'wait', why: `health gate is red: ${view.gateProblems.join('; ')}` }
    return { kind: 'bless' }
  }

  if (view.unannounced) return { kind: 'announce-failure', failure: view.unannounced }

  const turn = view.turn
  if (turn === 'unreachable') return { kind: 'wait', why: 'the store does not answer' }
  if (turn?.machine === view.machine) {
    const ours = state.staged?.generation === turn.generation && booted.generation < turn.generation
    if (!ours) {
      // Blessed and healthy again, or fallen back: either way this machine no longer needs the turn.
      if (view.gateProblems.length > 0)
        return {
          kind: 'wait',
          why: `keeps its turn while the health gate is red: ${view.gateProblems.join('; ')}`,
        }
      return { kind: 'release-turn', why: 'rebooted and healthy' }
    }
    const stop = halted(view)
    if (stop) return { kind: 'release-turn', why: stop }
    const offered = view.channel === 'unreachable' ? undefined : view.channel?.version
    if (offered !== undefined && offered !== turn.version)
      return { kind: 'release-turn', why: `${turn.version} was superseded by ${offered}` }
    // The window may have closed, and a member may have gone, while the turn was being granted or this daemon was away.
    if (!view.windowOpen) return { kind: 'release-turn', why: 'the reboot window is closed' }
    if (view.voterProblems.length > 0)
      return {
        kind: 'release-turn',
        why: `the store cannot spare a member: ${view.voterProblems.join('; ')}`,
      }
    if (!view.drained) return { kind: 'drain' }
    return { kind: 'reboot', version: turn.version, generation: turn.generation }
  }
  if (turn && Date.parse(turn.deadlineAt) < view.nowMs && !view.turnHalted)
    return { kind: 'halt-stale', turn }

  const channel = view.channel
  if (channel === 'unreachable') return { kind: 'wait', why: 'the boot server does not answer' }
  if (!channel) return { kind: 'wait', why: 'no release is published for this group' }
  if (channel.version === booted.version)
    return { kind: 'wait', why: `runs the published release ${booted.version}` }
  const older = compareVersions(channel.version, booted.version) < 0
  if (older && !channel.allowDowngrade)
    return { kind: 'wait', why: `refuses to go from ${booted.version} back to ${channel.version}` }
  const failure = state.failures.find((one) => one.version === channel.version)
  if (failure) return { kind: 'wait', why: `${channel.version} failed here: ${failure.reason}` }
  const stop = halted(view)
  if (stop) return { kind: 'wait', why: stop }

  if (state.staged?.version !== channel.version)
    return { kind: 'install', version: channel.version, slot: booted.slot === 'a' ? 'b' : 'a' }

  if (turn) return { kind: 'wait', why: `${turn.machine} has the turn since ${turn.grantedAt}` }
  if (view.gateProblems.length > 0)
    return { kind: 'wait', why: `is not healthy itself: ${view.gateProblems.join('; ')}` }
  if (view.voterProblems.length > 0)
    return { kind: 'wait', why: `the store cannot spare a member: ${view.voterProblems.join('; ')}` }
  if (!view.windowOpen) return { kind: 'wait', why: 'the reboot window is closed' }
  return { kind: 'take-turn', version: state.staged.version, generation: state.staged.generation }
}

/** Why nothing may start now, or undefined: halted by an operator, a failed machine, or nobody can tell. */
function halted(view: View): string | undefined {
  if (view.channel !== 'unreachable' && view.channel?.state === 'halted')
    return `the rollout is halted: ${view.channel.reason ?? 'no reason given'}`
  if (view.rollout === 'unreachable') return 'the store does not answer'
  if (view.rollout?.state === 'halted')
    return `the rollout is halted: ${view.rollout.reason ?? 'no reason given'}`
  return undefined
}
