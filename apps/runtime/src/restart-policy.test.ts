import { VirtualClock } from '@kiln/simulation'
import { expect, test } from 'vitest'
import {
  backOffMs,
  type ContainerState,
  created,
  type Exit,
  phaseOf,
  type RestartPolicy,
  step,
  wellAfterMs,
} from './restart-policy.ts'

const exit = (code: number, finishedAtMs = 0): Exit => ({
  code,
  signal: 0,
  oomKilled: false,
  lost: false,
  finishedAtMs,
})

/** Runs a container whose attempts last and end as told, until it rests; the moments at which it was started. */
function live(
  policy: RestartPolicy,
  lives: { lastsMs: number; code: number }[],
): { starts: number[]; state: ContainerState } {
  const clock = new VirtualClock()
  const starts: number[] = []
  let state: ContainerState = created
  for (const life of lives) {
    if (state.kind !== 'waiting') break
    clock.advanceTo(Math.max(clock.now(), state.dueMs))
    starts.push(clock.now())
    state = step(state, { kind: 'attempted' }, policy, clock.now())
    state = step(state, { kind: 'started', atMs: clock.now() }, policy, clock.now())
    clock.advance(life.lastsMs)
    state = step(state, { kind: 'exited', exit: exit(life.code, clock.now()) }, policy, clock.now())
  }
  return { starts, state }
}

test('a container that must always run is restarted at once, then with doubling delays', () => {
  const { starts, state } = live('Always', Array(5).fill({ lastsMs: 0, code: 0 }))
  expect(starts).toEqual([0, 0, 10_000, 30_000, 70_000])
  expect(state).toMatchObject({ kind: 'waiting', attempt: 5, restarts: 5, waiting: { reason: 'BackOff' } })
})

test('the delay has a limit, and is short again after a good while', () => {
  expect([1, 2, 5, 6, 1000].map((failures) => backOffMs(failures))).toEqual([
    10_000, 20_000, 160_000, 300_000, 300_000,
  ])
  const { starts } = live('Always', [
    { lastsMs: 0, code: 1 },
    { lastsMs: 0, code: 1 },
    { lastsMs: wellAfterMs, code: 1 },
    { lastsMs: 0, code: 1 },
  ])
  expect(starts[3]! - starts[2]!).toBe(wellAfterMs)
})

test('on failure means until it succeeds, never means once', () => {
  const failing = { lastsMs: 1, code: 3 }
  const onFailure = live('OnFailure', [failing, failing, { lastsMs: 1, code: 0 }, failing])
  expect(onFailure.starts).toHaveLength(3)
  expect(onFailure.state).toMatchObject({ kind: 'exited', restarts: 2, lastExit: { code: 0 } })
  const never = live('Never', [failing, failing])
  expect(never.starts).toHaveLength(1)
  expect(never.state).toMatchObject({ kind: 'exited', lastExit: { code: 3 } })
})

test('what keeps a container from starting is retried under every policy, and named', () => {
  const waiting = { reason: 'ImageMissing', code: 'IMAGE_NOT_FOUND', message: 'no such file' } as const
  let state = step(created, { kind: 'failed', waiting }, 'Never', 100)
  expect(state).toMatchObject({ kind: 'waiting', waiting, dueMs: 10_100, attempt: 0, restarts: 0 })
  state = step(state, { kind: 'failed', waiting }, 'Never', 10_100)
  expect(state).toMatchObject({ dueMs: 30_100 })
  expect(step(state, { kind: 'reset' }, 'Never', 1200)).toMatchObject({ dueMs: 1200, failures: 0 })
})

test('the phase of a pod follows from its containers', () => {
  const running: ContainerState = { ...created, kind: 'running', startedAtMs: 0 }
  const ended = (code: number): ContainerState => ({ ...created, kind: 'exited', lastExit: exit(code) })
  expect(phaseOf([created, created])).toBe('Pending')
  expect(phaseOf([running, created])).toBe('Running')
  expect(phaseOf([running, ended(0)])).toBe('Running')
  expect(phaseOf([ended(0), ended(0)])).toBe('Succeeded')
  expect(phaseOf([ended(0), ended(1)])).toBe('Failed')
})
