import { expect, test } from 'vitest'
import { decodeAnnouncement, encodeAnnouncement, refuseMixedReads } from './consensus/store-upgrade.ts'
import { startMembers } from './testing/member-process.ts'

const announced = (leaseReads?: boolean) =>
  decodeAnnouncement(
    encodeAnnouncement({
      storeVersion: 2,
      isNew: false,
      ...(leaseReads === undefined ? {} : { leaseReads }),
    }),
  )

test('lease reads are set on all members or none; who does not say is not asked', () => {
  const peers = new Map([
    [1n, announced(true)],
    [2n, announced()],
  ])
  expect(() => refuseMixedReads(true, peers)).not.toThrow()
  expect(() => refuseMixedReads(false, peers)).toThrow('member 1 has --lease-reads')
})

test('a member that is set otherwise than the others does not begin, and they go on', {
  timeout: 120_000,
}, async () => {
  const cluster = await startMembers({ count: 3 })
  try {
    const third = cluster.members[2]!
    await third.stop()
    await expect(third.start(['--lease-reads'])).rejects.toThrow('STORE_LEASE_READS_MIXED')
    await third.start()
    expect(cluster.members.every(({ running }) => running)).toBe(true)
  } finally {
    await cluster.stop()
  }
})
