import { createLog } from '@kiln/service'
import { describe, expect, test } from 'vitest'
import { decodeCommand } from '../state/command.ts'
import { manualClock } from '../testing/manual-clock.ts'
import {
  type Announcement,
  decodeAnnouncement,
  encodeAnnouncement,
  startStoreUpgrade,
} from './store-upgrade.ts'
import type { Member } from './types.ts'

const member = (id: bigint): Member => ({ id, name: '', peerUrls: [], clientUrls: [], learner: id === 3n })
const current = { storeVersion: 2, isNew: false }

/** A leader with a voter and a learner beside it, ten minutes to settle. */
function leader(own: Announcement = current) {
  const clock = manualClock()
  const state = { version: 1 }
  const announcements = new Map<bigint, Announcement>([
    [2n, current],
    [3n, current],
  ])
  let leads = true
  const resign = (): void => {
    leads = false
  }
  const stop = startStoreUpgrade({
    own,
    state,
    consensus: {
      id: () => 1n,
      isLeader: () => leads,
      members: () => [1n, 2n, 3n].map(member),
      propose: (entry) => {
        const command = decodeCommand(entry)
        if (command.kind === 'raise-version') state.version = command.version
        return Promise.resolve(undefined)
      },
    },
    announcements: () => announcements,
    clock,
    log: createLog('test', 'silent'),
    settleMs: 600_000,
  })
  return { clock, state, announcements, stop, resign }
}

describe('the version of the store is raised', () => {
  test('once all members run the new program for long enough', async () => {
    const { clock, state } = leader()
    await clock.advance(600_000)
    expect(state.version).toBe(1)
    await clock.advance(1_000)
    expect(state.version).toBe(2)
  })

  test.each([
    ['is away', undefined],
    ['runs the old program', { storeVersion: 1, isNew: false }],
  ])('never while a member, even a learner, %s', async (_what, announced) => {
    const { clock, state, announcements } = leader()
    if (announced) announcements.set(3n, announced)
    else announcements.delete(3n)
    await clock.advance(3_600_000)
    expect(state.version).toBe(1)
  })

  test('counting anew when one fell back in between', async () => {
    const { clock, state, announcements } = leader()
    await clock.advance(400_000)
    announcements.set(2n, { storeVersion: 1, isNew: false })
    await clock.advance(1_000)
    announcements.set(2n, current)
    await clock.advance(400_000)
    expect(state.version).toBe(1)
    await clock.advance(201_000)
    expect(state.version).toBe(2)
  })

  test('at once where all began empty, and only there', async () => {
    const fresh = { storeVersion: 2, isNew: true }
    const { clock, state, announcements } = leader(fresh)
    announcements.set(2n, fresh)
    await clock.advance(5_000)
    expect(state.version).toBe(1)
    announcements.set(3n, fresh)
    await clock.advance(1_000)
    expect(state.version).toBe(2)
  })

  test('by the leader alone, and not after the end', async () => {
    const follower = leader()
    follower.resign()
    await follower.clock.advance(1_000_000)
    const stopped = leader()
    stopped.stop()
    await stopped.clock.advance(1_000_000)
    expect([follower.state.version, stopped.state.version]).toEqual([1, 1])
  })
})

test('what a member announces survives the wire; silence is the first program, nonsense a fault', () => {
  const announcement = { storeVersion: 7, isNew: true }
  expect(decodeAnnouncement(encodeAnnouncement(announcement))).toEqual(announcement)
  expect(decodeAnnouncement(new Uint8Array(0))).toEqual({ storeVersion: 1, isNew: false })
  expect(() => decodeAnnouncement(new TextEncoder().encode('{"storeVersion":"x"}'))).toThrow(/store version/)
})
