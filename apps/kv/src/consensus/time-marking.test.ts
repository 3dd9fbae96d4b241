import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { decodeCommand } from '../state/command.ts'
import { timeStoreVersion } from '../state/store-version.ts'
import { TimeMarks } from '../state/time-marks.ts'
import { manualClock } from '../testing/manual-clock.ts'
import { startTimeMarking } from './time-marking.ts'

function leader() {
  const clock = manualClock()
  const state = { version: timeStoreVersion, store: { revision: 1 }, times: new TimeMarks() }
  const role = { leads: true, wallMs: 5_000, proposals: 0 }
  const stop = startTimeMarking({
    state,
    consensus: {
      isLeader: () => role.leads,
      propose: (entry) => {
        role.proposals++
        const command = decodeCommand(entry)
        if (command.kind === 'mark-time')
          state.times.add({ timeMs: command.timeMs, revision: state.store.revision })
        return Promise.resolve(undefined)
      },
    },
    clock,
    wallClock: () => role.wallMs,
    log: createLog('test', 'silent'),
  })
  return { clock, state, role, stop }
}

test('the time is put into the log once a second, and only while the store changes', async () => {
  const { clock, state, role } = leader()
  await clock.advance(10_000)
  expect(role.proposals).toBe(1)
  for (let second = 0; second < 5; second++) {
    state.store.revision += 100
    role.wallMs += 1_000
    await clock.advance(1_000)
  }
  expect(state.times.list().map(({ timeMs, revision }) => [timeMs, revision])).toEqual([
    [5_000, 1],
    ...[1, 2, 3, 4, 5].map((at) => [5_000 + at * 1_000, 1 + at * 100]),
  ])
})

test('never by a follower, in an old cluster, or after the end', async () => {
  const follower = leader()
  follower.role.leads = false
  await follower.clock.advance(5_000)
  const old = leader()
  old.state.version = timeStoreVersion - 1
  await old.clock.advance(5_000)
  const stopped = leader()
  stopped.stop()
  await stopped.clock.advance(5_000)
  expect([follower, old, stopped].map(({ role }) => role.proposals)).toEqual([0, 0, 0])
})
