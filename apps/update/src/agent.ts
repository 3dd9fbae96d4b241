import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { EtcdClient } from '@kiln/etcd-api'
import type { MachineTls } from '@kiln/pki/machine'
import type {
  ChannelAnswer,
  MachineFacts,
  MachineStatus,
  RebootTurn,
  RolloutRecord,
  StageReport,
} from '@kiln/schemas'
import { atomicWrite, describeError, Fault, type Log } from '@kiln/service'
import {
  type BootLink,
  fetchChannel,
  fetchRelease,
  haltChannel,
  openPart,
  sendReport,
} from './boot-server.ts'
import { readBooted } from './booted.ts'
import { type Action, type Booted, decide, type Failure, type View } from './decide.ts'
import { drainMachine, undrainMachine } from './drain.ts'
import { armEntry, blessEntry, disarmEntry, readEntries } from './esp.ts'
import { readFallbackReason, removeGateNote, writeGateNote } from './gate-note.ts'
import { findGateProblems } from './health.ts'
import { installRelease } from './install.ts'
import type { Settings } from './settings.ts'
import { loadState, type SavedState, saveState } from './state.ts'
import {
  beginRollout,
  findVoterProblems,
  finishRollout,
  haltRollout,
  readRollout,
  readTurn,
  releaseTurn,
  takeTurn,
} from './store.ts'
import { parseWindow, windowOpen } from './window.ts'

const run = promisify(execFile)

/** Green looks in a row before a boot counts as healthy: a daemon that flaps is not blessed. */
const greenLooks = 2

/** Faults after which a release is not tried again on this machine: it is the release that is wrong. */
const fatalCodes = [
  'RELEASE_SIGNATURE_INVALID',
  'RELEASE_EXPIRED',
  'RELEASE_FORMAT_UNKNOWN',
  'RELEASE_MANIFEST_INVALID',
  'RELEASE_MISMATCH',
  'RELEASE_INCOMPLETE',
  'SLOT_TOO_SMALL',
]
/** Longest pause between two tries of an install that fails here, as on a full ESP: each may read the whole slot. */
const installPauseMsMax = 15 * 60_000
/** Of why a rollout was halted. */
const reasonLengthMax = 2000
/** How long a reboot may take to begin, and how long one that did not is not tried again. */
const rebootWaitMs = 60_000
const rebootPauseMs = 5 * 60_000
/** A drained machine that only waits (for the store to answer, say) takes its pods back after this. */
const drainedMsMax = 2 * 60_000
/** A corrupt image may be the network's fault or the disk's: so many tries, then it counts as the release's. */
const corruptTriesMax = 3

export type AgentPorts = {
  settings: Settings
  facts: MachineFacts
  /** This machine's identity as it is now. */
  tls(): MachineTls
  store: EtcdClient
  /** Keeps the machine's record in the store under its lease. */
  publish(status: MachineStatus): void
  /** Wall clock, never before the image was built. */
  nowMs(): number
  /** Milliseconds of a clock that never goes back. */
  elapsedMs(): number
  sleep(ms: number): Promise<void>
  log: Log
}

/** One machine's update daemon: looks, decides, acts, again and again. */
export class UpdateAgent {
  #ports: AgentPorts
  #link: BootLink
  #booted: Booted
  #state: SavedState
  #greenLooks = 0
  #marked = false
  #readyReported = false
  #reportMissed = false
  #corruptTries = 0
  /** Installs of one release that failed in a row, and when the next may begin. */
  #retry = { version: '', failures: 0, notBeforeMs: 0 }
  #waiting = ''
  /** Nothing is wrong, but it has not been so for long enough. */
  #settling = false
  #gateNoted = ''
  /** Since when this machine is drained. */
  #drainedAtMs: number | undefined
  #rebootNotBeforeMs = 0
  #status: MachineStatus | undefined

  private constructor(ports: AgentPorts, booted: Booted, state: SavedState) {
    this.#ports = ports
    this.#link = { facts: ports.facts, tls: ports.tls }
    this.#booted = booted
    this.#state = state
  }

  static async open(ports: AgentPorts): Promise<UpdateAgent> {
    const booted = await readBooted(ports.settings)
    return new UpdateAgent(ports, booted, await loadState(ports.settings.stateDir, booted.generation))
  }

  /** Runs until stopped; a step that fails is logged and tried again at the next look. */
  async run(stopping: AbortSignal): Promise<void> {
    await this.#report('units', 'running')
    while (!stopping.aborted) {
      let again = false
      try {
        again = await this.step(stopping)
      } catch (error) {
        this.#ports.log.warn({ error }, describeError(error))
      }
      if (!again && !stopping.aborted) await this.#ports.sleep(this.#ports.settings.pollSeconds * 1000)
    }
  }

  /** One look and one action. True when there is something to do right away. */
  async step(stopping?: AbortSignal): Promise<boolean> {
    const view = await this.#look()
    // While the machine goes down its daemons do too: that says nothing about its health.
    if (stopping?.aborted) return false
    if (this.#booted.onTrial) await this.#noteGate(view.gateProblems)
    const action = decide(view)
    await this.#endDrain(action)
    await this.#announceHealth(view)
    await this.#explain(view, action)
    return await this.#act(action, view, stopping)
  }

  async #look(): Promise<View> {
    const { settings, facts, store } = this.#ports
    const problems = await findGateProblems({
      facts,
      store: facts.storeEndpoints.length > 0 ? store : undefined,
      units: settings.healthUnits,
      runtimeSocket: settings.runtimeSocket,
    })
    this.#greenLooks = problems.length === 0 ? this.#greenLooks + 1 : 0
    this.#settling = problems.length === 0 && this.#greenLooks < greenLooks
    const gateProblems = this.#settling
      ? [`healthy since ${this.#greenLooks} of ${greenLooks} looks`]
      : problems

    const channel = await this.#reachable(() => fetchChannel(this.#link))
    const version = typeof channel === 'object' ? channel.version : this.#booted.version
    const turn = await this.#reachable<RebootTurn | undefined>(() => readTurn(store, facts.group))
    const rolloutOf = (of: string): Promise<RolloutRecord | undefined | 'unreachable'> =>
      this.#reachable(() => readRollout(store, { group: facts.group, version: of }))
    const rollout = await rolloutOf(version)
    const others = typeof turn === 'object' && turn.machine !== facts.id ? turn : undefined
    const othersRollout = others && (others.version === version ? rollout : await rolloutOf(others.version))
    const free = turn === undefined || (turn !== 'unreachable' && turn.machine === facts.id)
    const mayReboot = this.#state.staged !== undefined && free && !this.#booted.onTrial
    return {
      machine: facts.id,
      nowMs: this.#ports.nowMs(),
      booted: this.#booted,
      state: this.#state,
      gateProblems,
      channel,
      rollout,
      turn,
      turnHalted: othersRollout === 'unreachable' || othersRollout?.state === 'halted',
      voterProblems: mayReboot
        ? await findVoterProblems(store).catch((error: unknown) => [describeError(error)])
        : [],
      windowOpen: windowOpen(
        settings.rebootWindows.flatMap((one) => parseWindow(one) ?? []),
        this.#ports.nowMs(),
      ),
      drained: this.#drainedAtMs !== undefined,
      unannounced: this.#state.unannounced,
    }
  }

  async #act(action: Action, view: View, stopping?: AbortSignal): Promise<boolean> {
    const { settings, facts, store, log } = this.#ports
    switch (action.kind) {
      case 'wait':
        return false
      case 'bless': {
        await blessEntry(settings.espDir, this.#booted.generation)
        await removeGateNote(settings.stateDir, this.#booted.generation)
        const { attempt: _attempt, staged: _staged, ...kept } = this.#state
        await this.#save({ ...kept, formatVersion: 1 })
        this.#booted = { ...this.#booted, onTrial: false }
        await writeFile(join(settings.runDir, 'boot-blessed'), '').catch((error: unknown) =>
          log.warn({ error }, 'boot marker not written'),
        )
        log.info({ version: this.#booted.version, generation: this.#booted.generation }, 'boot blessed')
        return true
      }
      case 'record-fallback': {
        const reason = await this.#fallbackReason(action.generation)
        await this.#fail({ version: action.version, generation: action.generation, reason })
        return true
      }
      case 'announce-failure':
        await this.#announce(action.failure)
        return true
      case 'release-turn':
        await this.#finishRollout()
        if (this.#state.staged && this.#booted.generation < this.#state.staged.generation)
          await disarmEntry(settings.espDir, this.#state.staged)
        await releaseTurn(store, facts.group, facts.id)
        log.info({ why: action.why }, 'turn released')
        return true
      case 'take-turn': {
        const now = this.#ports.nowMs()
        const won = await takeTurn(store, facts.group, {
          formatVersion: 1,
          machine: facts.id,
          version: action.version,
          generation: action.generation,
          grantedAt: new Date(now).toISOString(),
          deadlineAt: new Date(now + settings.turnMinutes * 60_000).toISOString(),
        })
        if (won) {
          log.info({ version: action.version }, 'turn taken')
          await beginRollout(store, { group: facts.group, version: action.version })
        }
        return won
      }
      case 'install':
        if (action.version === this.#retry.version && this.#pausing()) return false
        await this.#install(action.version, action.slot, view)
        return true
      case 'drain':
        if (this.#ports.elapsedMs() < this.#rebootNotBeforeMs) return false
        log.info({}, 'draining before the reboot')
        this.#publish('draining')
        this.#drainedAtMs = this.#ports.elapsedMs()
        await drainMachine({ ...this.#ports, ...settings })
        this.#drainedAtMs = this.#ports.elapsedMs()
        // Meanwhile the window may have closed or a member gone: looks again.
        return true
      case 'reboot':
        // First the entry: a cut in between starts the release, and the turn for it is held.
        await armEntry(settings.espDir, action)
        await this.#save({
          ...this.#state,
          attempt: { version: action.version, generation: action.generation, bootId: this.#booted.bootId },
        })
        this.#publish('updating')
        log.info({ version: action.version, generation: action.generation }, 'rebooting into the new release')
        try {
          await run('/bin/sh', ['-c', settings.rebootCommand], { timeout: rebootWaitMs })
          await this.#ports.sleep(rebootWaitMs)
          if (!stopping?.aborted) log.error({}, 'the reboot did not happen; trying again later')
        } finally {
          if (!stopping?.aborted) {
            this.#rebootNotBeforeMs = this.#ports.elapsedMs() + rebootPauseMs
            await this.#undrain('the reboot did not happen')
          }
        }
        return false
      case 'halt-stale': {
        const reason = `${action.turn.machine} has held its turn since ${action.turn.grantedAt}, past its deadline`
        await this.#halt(action.turn.version, reason, action.turn.machine)
        return false
      }
    }
  }

  /** A record of another machine that cannot be read (a later format, say) must not keep the turn from everybody. */
  async #finishRollout(): Promise<void> {
    const { facts, store, log } = this.#ports
    await finishRollout(store, { group: facts.group, version: this.#booted.version }).catch(
      (error: unknown) => {
        if (!(error instanceof Fault && error.code === 'STORE_RECORD_INVALID')) throw error
        log.warn({ error }, 'the rollout is not marked done')
      },
    )
  }

  /** An answer that cannot be read counts as none: it holds back what needs it, not this machine's own boot. */
  async #reachable<T>(ask: () => Promise<T>): Promise<T | 'unreachable'> {
    try {
      return await ask()
    } catch (error) {
      if (error instanceof Fault && error.code === 'STORE_RECORD_INVALID')
        this.#ports.log.warn({ error }, describeError(error))
      return 'unreachable'
    }
  }

  /** Not longer than the longest pause, so that a clock set back does not stretch it. */
  #pausing(): boolean {
    const leftMs = this.#retry.notBeforeMs - this.#ports.nowMs()
    return leftMs > 0 && leftMs <= installPauseMsMax
  }

  async #install(version: string, slot: 'a' | 'b', view: View): Promise<void> {
    const { settings, facts, log } = this.#ports
    const channel = view.channel as ChannelAnswer
    if (this.#retry.version !== version) this.#retry = { version, failures: 0, notBeforeMs: 0 }
    const generation = this.#state.generationMax + 1
    try {
      const release = await fetchRelease(this.#link, channel, {
        releaseKeysDir: settings.releaseKeysDir,
        nowMs: this.#ports.nowMs(),
      })
      log.info({ version, slot, generation }, 'installing release')
      const { staged: _staged, ...kept } = this.#state
      await this.#save({ ...kept, formatVersion: 1 })
      await installRelease(
        release,
        { slot, generation, booted: this.#booted },
        {
          espDir: settings.espDir,
          stateDir: settings.stateDir,
          slotPath: (one) => (one === 'a' ? settings.slotA : settings.slotB),
          bootUrl: facts.bootUrl,
          machine: facts.id,
          openPart,
          sleep: this.#ports.sleep,
          log,
        },
      )
      this.#corruptTries = 0
      await this.#save({ ...this.#state, generationMax: generation, staged: { version, generation, slot } })
    } catch (error) {
      const code = error instanceof Fault ? error.code : ''
      if (code === 'IMAGE_CORRUPT') this.#corruptTries += 1
      if (fatalCodes.includes(code) || this.#corruptTries >= corruptTriesMax) {
        this.#corruptTries = 0
        await this.#fail({ version, generation, reason: describeError(error) })
        return
      }
      const pauseMs = Math.min(installPauseMsMax, settings.pollSeconds * 1000 * 2 ** this.#retry.failures)
      this.#retry.failures += 1
      this.#retry.notBeforeMs = this.#ports.nowMs() + pauseMs
      throw error
    }
  }

  /** Remembers that a release failed here; everybody else hears of it in the next step. */
  async #fail(what: Omit<Failure, 'at'>): Promise<void> {
    const failure: Failure = { ...what, at: new Date(this.#ports.nowMs()).toISOString() }
    const { attempt: _attempt, staged: _staged, ...kept } = this.#state
    await this.#save({
      ...kept,
      formatVersion: 1,
      generationMax: Math.max(kept.generationMax, failure.generation),
      failures: [...kept.failures, failure],
      unannounced: failure,
    })
    this.#ports.log.error({ ...failure }, 'release failed on this machine')
  }

  async #announce(failure: Failure): Promise<void> {
    await this.#halt(failure.version, `${this.#ports.facts.id}: ${failure.reason}`, this.#ports.facts.id)
    const { unannounced: _unannounced, ...kept } = this.#state
    await this.#save({ ...kept, formatVersion: 1 })
  }

  async #halt(version: string, words: string, machine: string): Promise<void> {
    const { facts, store, log } = this.#ports
    const reason = words.slice(0, reasonLengthMax)
    await haltRollout(store, { group: facts.group, version }, { reason, machine })
    // The store decides; the boot server only stops offering, and may be away.
    const heard = await haltChannel(this.#link, { version, reason }).catch((error: unknown) => {
      log.warn({ error }, 'the boot server did not hear of the halt')
      return undefined
    })
    if (heard === 'outdated')
      log.info({ version }, 'the boot server offers another release by now, which goes on')
    log.error({ version, reason }, 'rollout halted')
  }

  /** Why a trial boot came back: what it left, and what its entry's counter tells. */
  async #fallbackReason(generation: number): Promise<string> {
    const { stateDir, espDir } = this.#ports.settings
    const entry = (await readEntries(espDir)).find((one) => one.generation === generation)
    return await readFallbackReason(stateDir, generation, entry?.triesDone ?? 0)
  }

  async #noteGate(gateProblems: string[]): Promise<void> {
    const { bootId, generation } = this.#booted
    const problems = this.#settling ? [] : gateProblems
    const note = { bootId, problems, settling: this.#settling }
    if (JSON.stringify(note) === this.#gateNoted) return
    await writeGateNote(this.#ports.settings.stateDir, generation, note)
    this.#gateNoted = JSON.stringify(note)
  }

  /** A drain is for the reboot: whatever else comes next, and also waiting too long, gives the pods back. */
  async #endDrain(next: Action): Promise<void> {
    if (this.#drainedAtMs === undefined || next.kind === 'reboot') return
    if (next.kind === 'wait' && this.#ports.elapsedMs() - this.#drainedAtMs < drainedMsMax) return
    await this.#undrain(next.kind === 'wait' ? next.why : next.kind)
  }

  async #undrain(why: string): Promise<void> {
    this.#drainedAtMs = undefined
    this.#ports.log.info({ why }, 'no longer draining')
    await undrainMachine({ ...this.#ports, ...this.#ports.settings })
  }

  /** Keeps the machine's record, and says `ready` once a boot. */
  async #announceHealth(view: View): Promise<void> {
    const green = view.gateProblems.length === 0
    const healthy = this.#booted.onTrial ? 'updating' : 'ready'
    const state = this.#drainedAtMs !== undefined ? 'draining' : green ? healthy : 'degraded'
    if (state !== this.#status?.state) this.#publish(state)
    if (state !== 'ready') return
    if (!this.#marked) await this.#markReady()
    // Whoever waits for this machine must hear of it, also when the boot server was away just then.
    if (!this.#readyReported) this.#readyReported = await this.#report('ready', 'done')
  }

  async #markReady(): Promise<void> {
    this.#marked = true
    const uptime = await this.#uptimeSeconds()
    const { version, slot, generation } = this.#booted
    await writeFile(
      this.#ports.settings.consoleFile,
      `MARK:ready uptime=${uptime.toFixed(2)} version=${version} slot=${slot} generation=${generation}\n`,
    ).catch((error: unknown) => this.#ports.log.debug({ error }, 'no console'))
  }

  #publish(state: MachineStatus['state']): void {
    const { facts } = this.#ports
    const { version, slot, generation, bootId } = this.#booted
    const since =
      this.#status?.state === state ? this.#status.since : new Date(this.#ports.nowMs()).toISOString()
    this.#status = {
      formatVersion: 1,
      id: facts.id,
      version,
      slot,
      generation,
      bootId,
      state,
      since,
      address: facts.address,
      group: facts.group,
    }
    this.#ports.publish(this.#status)
  }

  /** True when the boot server took it. */
  async #report(stage: StageReport['stage'], status: StageReport['status']): Promise<boolean> {
    const { version, slot, generation, bootId } = this.#booted
    const uptimeSeconds = await this.#uptimeSeconds()
    const report: StageReport = { stage, status, uptimeSeconds, bootId, version, slot, generation }
    return await sendReport(this.#link, report).then(
      () => true,
      (error: unknown) => {
        if (!this.#reportMissed) this.#ports.log.info({ stage, error }, 'the boot server took no report')
        this.#reportMissed = true
        return false
      },
    )
  }

  async #uptimeSeconds(): Promise<number> {
    const text = await readFile(this.#ports.settings.uptimeFile, 'utf8').catch(() => '0')
    return Number(text.split(' ')[0]) || 0
  }

  async #save(state: SavedState): Promise<void> {
    await saveState(this.#ports.settings.stateDir, state)
    this.#state = state
  }

  /** Leaves what `kiln-update status` prints, and logs a reason to wait once. */
  async #explain(view: View, action: Action): Promise<void> {
    const why = action.kind === 'wait' ? action.why : action.kind
    const seen = {
      at: new Date(view.nowMs).toISOString(),
      booted: this.#booted,
      state: this.#state,
      problems: view.gateProblems,
      action,
      why,
    }
    await atomicWrite(
      join(this.#ports.settings.runDir, 'update.json'),
      JSON.stringify(seen, null, 2) + '\n',
    ).catch((error: unknown) => this.#ports.log.debug({ error }, 'status file not written'))
    if (why !== this.#waiting) this.#ports.log.info({ action: action.kind, why }, 'next step')
    this.#waiting = why
  }
}
