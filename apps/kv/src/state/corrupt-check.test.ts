import * as rpc from '@kiln/etcd-api/rpc'
import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import type { Consensus } from '../consensus/types.ts'
import { loneConsensus } from '../testing/lone-consensus.ts'
import { manualClock } from '../testing/manual-clock.ts'
import { encodeCommand } from './command.ts'
import { CorruptCheck } from './corrupt-check.ts'
import { type Applied, StoreState } from './state-machine.ts'

async function write(state: StoreState, ...keys: string[]): Promise<void> {
  for (const key of keys) {
    const request = rpc.PutRequest.encode(rpc.PutRequest.fromPartial({ key: Buffer.from(key) })).finish()
    await state.apply([{ index: 1, term: 1, data: encodeCommand({ kind: 'put', request }) }])
  }
}

/** A leader and a follower that asks it. */
function pair() {
  const clock = manualClock()
  const log = createLog('test', 'silent')
  const leader = new StoreState()
  const follower = new StoreState()
  let consensus: Consensus<Applied>
  const answering = new CorruptCheck({ state: leader, consensus: () => consensus, clock, log })
  consensus = {
    ...loneConsensus(follower, clock, (body) => answering.onRequest(body)),
    isLeader: () => false,
    leader: () => 1n,
  }
  const asking = new CorruptCheck({ state: follower, consensus: () => consensus, clock, log })
  return { clock, leader, follower, asking }
}

test('members with the same history are the same, also when the leader is ahead', async () => {
  const { leader, follower, asking } = pair()
  await write(leader, 'a', 'b')
  await write(follower, 'a', 'b')
  expect(await asking.compare()).toBe('same')
  await write(leader, 'c')
  expect(await asking.compare()).toBe('same')
})

test('a member that differs raises the alarm for itself', async () => {
  const { clock, leader, follower, asking } = pair()
  await write(leader, 'a', 'b')
  await write(follower, 'a', 'x')
  expect(await asking.compare()).toBe('different')
  const stop = asking.start(1000)
  await clock.advance(999)
  expect(follower.alarms.list()).toEqual([])
  await clock.advance(10)
  await expect.poll(() => follower.alarms.list()).toEqual([{ member: 7n, alarm: 'corrupt' }])
  stop()
})

test('members compacted at different revisions are not compared', async () => {
  const { leader, follower, asking } = pair()
  await write(leader, 'a', 'b')
  await write(follower, 'a', 'x')
  leader.store.compact(2)
  expect(await asking.compare()).toBe('not-comparable')
  leader.store.compact(3)
  await write(leader, 'c')
  leader.store.compact(4)
  expect(await asking.compare()).toBe('not-comparable')
})

test('a question of a newer program is refused', async () => {
  const { asking } = pair()
  expect(asking.isQuestion(Buffer.from([0x48, 2]))).toBe(true)
  expect(asking.isQuestion(Buffer.from([1, 0]))).toBe(false)
  await expect(asking.onRequest(Buffer.from([0x48, 2]))).rejects.toMatchObject({
    code: 'STORE_FORMAT_UNKNOWN',
  })
})
