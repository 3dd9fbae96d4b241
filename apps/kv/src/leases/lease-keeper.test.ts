import { createLog, Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import type { Consensus, LeaderChange } from '../consensus/types.ts'
import { encodeCommand } from '../state/command.ts'
import { type Applied, StoreState } from '../state/state-machine.ts'
import { loneConsensus } from '../testing/lone-consensus.ts'
import { manualClock } from '../testing/manual-clock.ts'
import { LeaseKeeper } from './lease-keeper.ts'

function setUp(change: (consensus: Consensus<Applied>) => Partial<Consensus<Applied>> = () => ({})) {
  const clock = manualClock()
  const state = new StoreState()
  const log = createLog('test', 'silent')
  const leases = new LeaseKeeper({ state, clock, log, electionMs: 1000 })
  const lone = loneConsensus(state, clock, (body) => leases.onRequest(body))
  const consensus = { ...lone, ...change(lone) }
  state.listen({
    onLeaseGranted: (id, ttl) => leases.onGranted(id, ttl),
    onLeaseGone: (id) => leases.onGone(id),
  })
  const grant = (id: bigint, ttl: number) =>
    consensus.propose(encodeCommand({ kind: 'lease-grant', id, ttl }))
  return { clock, state, leases, consensus, grant }
}

test('a lease ends after its TTL, within a second, and not before', async () => {
  const { clock, state, leases, consensus, grant } = setUp()
  leases.start(consensus)
  await grant(5n, 10)
  await clock.advance(9999)
  expect(state.store.leases.has(5n)).toBe(true)
  await clock.advance(600)
  expect(state.store.leases.has(5n)).toBe(false)
})

test('a renewal starts the TTL anew and an unknown lease answers 0', async () => {
  const { clock, state, leases, consensus, grant } = setUp()
  leases.start(consensus)
  await grant(5n, 10)
  await clock.advance(8000)
  expect(await leases.remaining(5n)).toBe(2)
  expect(await leases.renew(5n)).toBe(10)
  await clock.advance(9000)
  expect(state.store.leases.has(5n)).toBe(true)
  expect(await leases.renew(6n)).toBe(0)
  expect(await leases.remaining(6n)).toBeUndefined()
})

test('a leader renews at once, what it must think about it does not', async () => {
  const { clock, leases, consensus, grant } = setUp()
  expect(leases.renewNow(5n)).toBeUndefined()
  leases.start(consensus)
  await grant(5n, 10)
  await clock.advance(8000)
  expect([leases.renewNow(5n), leases.renewNow(6n)]).toEqual([10, 0])
  expect(await leases.remaining(5n)).toBe(10)
  await grant(7n, 3600)
  await clock.advance(5 * 60_000 + 1000)
  expect(leases.renewNow(7n), 'a checkpoint must be taken back first').toBeUndefined()
})

test.each<[string, Partial<Consensus<Applied>>]>([
  ['who does not lead', { isLeader: () => false }],
  ['whose majority was not heard of', { leadershipConfirmedAt: () => undefined }],
  ['whose majority was heard of too long ago', { leadershipConfirmedAt: () => -1001 }],
])('a member %s does not renew at once', async (_, change) => {
  const { leases, consensus, grant } = setUp(() => change)
  leases.start(consensus)
  await grant(5n, 10)
  expect(leases.renewNow(5n)).toBeUndefined()
})

test('a lease whose time is over cannot be renewed while it is being ended', async () => {
  const { clock, leases, consensus, grant } = setUp()
  leases.start(consensus)
  await grant(5n, 10)
  await clock.advance(9900)
  const late = clock.now() + 150
  const jump = clock.advance(150)
  await jump
  expect(clock.now()).toBe(late)
  expect(await leases.renew(5n)).toBe(0)
})

test('nothing is ended without a majority that confirms the leader', async () => {
  const { clock, state, leases, consensus, grant } = setUp(() => ({
    confirmLeadership: async () => {
      throw new Fault('STORE_NOT_LEADER', 'deposed')
    },
  }))
  leases.start(consensus)
  await grant(5n, 10)
  await clock.advance(60_000)
  expect(state.store.leases.has(5n)).toBe(true)
})

test('an expiry that a former leader proposed has no effect in another term', async () => {
  const state = new StoreState()
  const apply = async (command: Parameters<typeof encodeCommand>[0], term: number) =>
    state.apply([{ index: 1, term, data: encodeCommand(command) }])
  await apply({ kind: 'lease-grant', id: 5n, ttl: 10 }, 3)
  await apply({ kind: 'lease-expire', term: 3, ids: [5n] }, 4)
  await apply({ kind: 'lease-checkpoint', term: 3, leases: [{ id: 5n, remainingTtl: 1 }] }, 4)
  expect(state.store.leases.get(5n)).toMatchObject({ remainingTtl: 0 })
  await apply({ kind: 'lease-expire', term: 4, ids: [5n] }, 4)
  expect(state.store.leases.has(5n)).toBe(false)
})

test('long leases are checkpointed, and a renewal takes the checkpoint back first', async () => {
  const { clock, state, leases, consensus, grant } = setUp()
  leases.start(consensus)
  await grant(5n, 3600)
  await clock.advance(5 * 60_000 + 1000)
  expect(state.store.leases.get(5n)!.remainingTtl).toBeGreaterThan(3250)
  expect(await leases.renew(5n)).toBe(3600)
  expect(state.store.leases.get(5n)!.remainingTtl).toBe(0)
})

test('a question that a dead leader left open is put to the next one', async () => {
  let announce: (change: LeaderChange) => void = () => undefined
  let asked = 0
  const { leases, consensus, grant, clock } = setUp((lone) => ({
    isLeader: () => false,
    onLeaderChange: (fn) => {
      announce = fn
      return () => undefined
    },
    requestLeader: (body) => (asked++ === 0 ? new Promise(() => undefined) : lone.requestLeader(body)),
  }))
  leases.start(consensus)
  await grant(5n, 10)
  const renewal = leases.renew(5n)
  await clock.advance(10)
  announce({ leader: 9n, term: 2, isLeader: false })
  expect(await renewal).toBe(10)
  expect(asked).toBe(2)
})
