import type { RebootTurn } from '@kiln/schemas'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decide, type View } from './decide.ts'

const now = Date.parse('2026-01-01T12:00:00Z')
const turnOf = (machine: string, generation: number): RebootTurn => ({
  formatVersion: 1,
  machine,
  version: '0.2.0',
  generation,
  grantedAt: '2026-01-01T11:50:00Z',
  deadlineAt: '2026-01-01T12:20:00Z',
})
const channelOf = (version: string) => ({
  version,
  manifestUrl: 'http://boot/manifest.json',
  state: 'rolling' as const,
})
const quiet: View = {
  machine: 'node1',
  nowMs: now,
  booted: { version: '0.1.0', generation: 1, slot: 'a', bootId: 'boot-1', onTrial: false },
  state: { formatVersion: 1, generationMax: 1, failures: [] },
  gateProblems: [],
  channel: channelOf('0.1.0'),
  rollout: undefined,
  turn: undefined,
  turnHalted: false,
  voterProblems: [],
  windowOpen: true,
  drained: false,
  unannounced: undefined,
}
const offered: View = { ...quiet, channel: channelOf('0.2.0') }
const staged: View = {
  ...offered,
  state: { ...quiet.state, generationMax: 2, staged: { version: '0.2.0', generation: 2, slot: 'b' } },
}
const granted: View = { ...staged, turn: turnOf('node1', 2), drained: true }
const trial: View = {
  ...granted,
  booted: { version: '0.2.0', generation: 2, slot: 'b', bootId: 'boot-2', onTrial: true },
  state: { ...staged.state, attempt: { version: '0.2.0', generation: 2, bootId: 'boot-1' } },
}
const fallenBack: View = { ...trial, booted: { ...quiet.booted, bootId: 'boot-3' } }

test('a machine that runs the published release waits', () => {
  expect(decide(quiet)).toEqual({ kind: 'wait', why: 'runs the published release 0.1.0' })
})

test('a new release goes into the other slot', () => {
  expect(decide(offered)).toEqual({ kind: 'install', version: '0.2.0', slot: 'b' })
})

test('an older release is refused unless the channel asks for it', () => {
  const older: View = {
    ...quiet,
    booted: { ...quiet.booted, version: '0.10.0' },
    channel: channelOf('0.9.0'),
  }
  expect(decide(older).kind).toBe('wait')
  const asked: View = { ...older, channel: { ...channelOf('0.9.0'), allowDowngrade: true } }
  expect(decide(asked).kind).toBe('install')
})

test('the turn is taken only while everybody is healthy and the window is open', () => {
  expect(decide(staged)).toEqual({ kind: 'take-turn', version: '0.2.0', generation: 2 })
  expect(decide({ ...staged, turn: turnOf('node2', 5) }).kind).toBe('wait')
  expect(decide({ ...staged, gateProblems: ['a pod is down'] }).kind).toBe('wait')
  expect(decide({ ...staged, voterProblems: ['node3 is behind'] }).kind).toBe('wait')
  expect(decide({ ...staged, windowOpen: false }).kind).toBe('wait')
})

test('the machine is drained before it reboots', () => {
  expect(decide({ ...granted, drained: false })).toEqual({ kind: 'drain' })
  expect(decide(granted)).toEqual({ kind: 'reboot', version: '0.2.0', generation: 2 })
})

test('the window is looked at again after the grant, and after the drain', () => {
  expect(decide({ ...granted, drained: false, windowOpen: false })).toMatchObject({ kind: 'release-turn' })
  expect(decide({ ...granted, windowOpen: false })).toMatchObject({ kind: 'release-turn' })
})

test('a member that went while this daemon was away gives the turn back', () => {
  expect(decide({ ...granted, voterProblems: ['node3 does not answer'] })).toMatchObject({
    kind: 'release-turn',
    why: expect.stringContaining('node3 does not answer'),
  })
})

test('a turn for a release that is no longer the published one is given back', () => {
  expect(decide({ ...granted, channel: channelOf('0.3.0') })).toMatchObject({ kind: 'release-turn' })
  expect(decide({ ...granted, channel: 'unreachable' }).kind).toBe('reboot')
})

test('a rollout that was halted meanwhile gives the turn back', () => {
  expect(
    decide({ ...granted, rollout: { formatVersion: 1, state: 'halted', reason: 'node2 failed' } }).kind,
  ).toBe('release-turn')
  expect(decide({ ...granted, channel: { ...channelOf('0.2.0'), state: 'halted' } }).kind).toBe(
    'release-turn',
  )
})

test('a trial boot is blessed only when the gate is green', () => {
  expect(decide({ ...trial, gateProblems: ['the store has no leader'] }).kind).toBe('wait')
  expect(decide(trial)).toEqual({ kind: 'bless' })
})

test('a blessed boot gives its turn back, and only when healthy', () => {
  const blessed: View = { ...trial, booted: { ...trial.booted, onTrial: false } }
  expect(decide(blessed)).toMatchObject({ kind: 'release-turn' })
  expect(decide({ ...blessed, gateProblems: ['x'] }).kind).toBe('wait')
})

test('coming back in the older generation is a fallback, whatever else is true', () => {
  expect(decide(fallenBack)).toEqual({ kind: 'record-fallback', version: '0.2.0', generation: 2 })
})

test('after a fallback the failure is announced, then the turn released, and the release is not tried again', () => {
  const failure = { version: '0.2.0', generation: 2, reason: 'hang', at: '2026-01-01T12:00:00Z' }
  const recorded: View = {
    ...fallenBack,
    state: { formatVersion: 1, generationMax: 2, failures: [failure] },
    unannounced: failure,
  }
  expect(decide(recorded)).toEqual({ kind: 'announce-failure', failure })
  const announced: View = {
    ...recorded,
    unannounced: undefined,
    rollout: { formatVersion: 1, state: 'halted', reason: 'hang' },
  }
  expect(decide(announced).kind).toBe('release-turn')
  const released: View = { ...announced, turn: undefined, rollout: undefined }
  expect(decide(released)).toMatchObject({ kind: 'wait' })
})

test('a daemon that died between grant and reboot goes on with the reboot', () => {
  const again: View = {
    ...granted,
    state: { ...granted.state, attempt: { version: '0.2.0', generation: 2, bootId: 'boot-1' } },
  }
  expect(decide(again).kind).toBe('reboot')
})

test("another machine's turn past its deadline halts the rollout but is not taken", () => {
  const stale = { ...turnOf('node2', 7), deadlineAt: '2026-01-01T11:59:00Z' }
  expect(decide({ ...staged, turn: stale })).toEqual({ kind: 'halt-stale', turn: stale })
  expect(decide({ ...staged, turn: stale, turnHalted: true }).kind).toBe('wait')
})

test('a stale turn of an older release is halted once, whatever is published now', () => {
  const stale = { ...turnOf('node2', 7), deadlineAt: '2026-01-01T11:59:00Z' }
  const newer: View = { ...quiet, turn: stale, channel: channelOf('0.3.0') }
  expect(decide(newer).kind).toBe('halt-stale')
  expect(decide({ ...newer, turnHalted: true }).kind).toBe('install')
})

test('without the store or the boot server nothing is started', () => {
  expect(decide({ ...staged, turn: 'unreachable' }).kind).toBe('wait')
  expect(decide({ ...offered, channel: 'unreachable' }).kind).toBe('wait')
  expect(decide({ ...staged, rollout: 'unreachable' }).kind).toBe('wait')
})

test('no view lets a machine reboot without the turn, or take one while it is held', () => {
  const views = fc.record({
    base: fc.constantFrom(quiet, offered, staged, granted, trial, fallenBack),
    turn: fc.constantFrom(undefined, 'unreachable' as const, turnOf('node1', 2), turnOf('node2', 2)),
    gate: fc.constantFrom<string[][]>([], ['red']),
    voters: fc.constantFrom<string[][]>([], ['down']),
    windowOpen: fc.boolean(),
    drained: fc.boolean(),
  })
  fc.assert(
    fc.property(views, ({ base, turn, gate, voters, windowOpen, drained }) => {
      const action = decide({ ...base, turn, gateProblems: gate, voterProblems: voters, windowOpen, drained })
      if (action.kind === 'drain') expect(turn).toMatchObject({ machine: 'node1' })
      if (action.kind === 'reboot') expect(drained).toBe(true)
      if (action.kind === 'reboot')
        expect(turn).toMatchObject({ machine: 'node1', generation: action.generation })
      if (action.kind === 'take-turn')
        expect([turn, gate, voters, windowOpen]).toEqual([undefined, [], [], true])
      if (action.kind === 'bless') expect(gate).toEqual([])
    }),
  )
})
