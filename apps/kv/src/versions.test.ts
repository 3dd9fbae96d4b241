import { EtcdClient } from '@kiln/etcd-api'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { storeVersion } from './state/store-version.ts'
import { type MemberProcess, startMembers } from './testing/member-process.ts'
import { previousProgram } from './testing/previous-program.ts'

const previous = previousProgram()
if (typeof previous === 'string') console.log(`skipped: ${previous}`)

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})
afterAll(() => {
  if (typeof previous !== 'string') previous.remove()
})

const storeVersionOf = async (member: MemberProcess): Promise<number> => {
  const page = await (await fetch(`${member.endpoint}/metrics`)).text()
  return Number(/^kiln_kv_store_version (\d+)$/m.exec(page)?.[1] ?? 1)
}

describe.skipIf(typeof previous === 'string')('beside the previous version', () => {
  const old = typeof previous === 'string' ? '' : previous.main

  test('members go to this version one by one under writes, one falls back meanwhile, and nothing is lost', {
    timeout: 300_000,
  }, async () => {
    const flags = ['--snapshot-count=50', '--snapshot-catchup-entries=20']
    const cluster = await startMembers({ count: 3, main: old, flags })
    ends.push(() => cluster.stop())
    const client = new EtcdClient({ endpoints: cluster.endpoints, timeoutMs: 10_000 })
    ends.push(() => client.close())
    const acknowledged: string[] = []
    const write = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        const key = `/k/${String(acknowledged.length).padStart(5, '0')}`
        await client.put(key, key.repeat(20))
        acknowledged.push(key)
      }
    }
    const { id: lease } = await client.leaseGrant(3600)
    await client.put('/leased', 'x', { lease })
    await write(150)

    const [first, second, third] = cluster.members as [MemberProcess, MemberProcess, MemberProcess]
    const restart = async (member: MemberProcess, main?: string, more: string[] = []): Promise<void> => {
      await member.stop()
      await write(30)
      await member.start(more, main)
      await write(30)
    }
    await restart(first)
    await restart(second)
    // Its image proved bad: the old program starts on what the new one wrote.
    await restart(second, old)
    await restart(second)
    // All run the new program now, but one of them may still fall back.
    await restart(third)
    expect(await Promise.all(cluster.members.map(storeVersionOf))).toEqual([1, 1, 1])
    await restart(third, old)

    const soon = ['--store-upgrade-delay=1s']
    for (const member of [third, first, second]) await restart(member, undefined, soon)
    await expect
      .poll(() => Promise.all(cluster.members.map(storeVersionOf)), { timeout: 20_000 })
      .toEqual([storeVersion, storeVersion, storeVersion])
    await write(60)

    for (const endpoint of cluster.endpoints) {
      const one = new EtcdClient({ endpoints: [endpoint], timeoutMs: 10_000 })
      ends.push(() => one.close())
      const { entries } = await one.getPrefix('/k/')
      expect(entries.map(({ key }) => key)).toEqual(acknowledged)
      expect(await one.leaseTimeToLive(lease)).toMatchObject({ grantedSeconds: 3600, keys: ['/leased'] })
    }

    // From here on the old program refuses instead of going another way.
    await third.stop()
    await write(60)
    await expect(third.start([], old)).rejects.toThrow(/STORE_FORMAT_UNKNOWN|STORE_SNAPSHOT_BAD/)
  })
})

test('a new cluster has the newest version of the store at once', async () => {
  const cluster = await startMembers({ count: 3 })
  ends.push(() => cluster.stop())
  await expect
    .poll(() => Promise.all(cluster.members.map(storeVersionOf)), { timeout: 20_000 })
    .toEqual([storeVersion, storeVersion, storeVersion])
})
