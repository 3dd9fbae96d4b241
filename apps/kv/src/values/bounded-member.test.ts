import { EtcdClient } from '@kiln/etcd-api'
import { afterEach, expect, test } from 'vitest'
import { startMembers } from '../testing/member-process.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

const countOf = async (endpoint: string, name: string): Promise<number> => {
  const page = await (await fetch(`${endpoint}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(page)?.[1])
}

test('a member whose history is larger than its bound serves it, and starts again with it', async () => {
  // A snapshot comes often, so that the start is from one.
  const flags = ['--values-in-memory=1MiB', '--snapshot-count=50']
  const cluster = await startMembers({ count: 1, flags })
  ends.push(() => cluster.stop())
  const [member] = cluster.members
  const { endpoint } = member!
  const client = new EtcdClient({ endpoints: [endpoint], timeoutMs: 20_000 })
  ends.push(() => client.close())
  const value = (at: number): Buffer => Buffer.alloc(64 * 1024, `${at} `)
  for (let at = 0; at < 128; at++) await client.put(`/k/${at}`, value(at))

  const check = async (): Promise<void> => {
    await expect.poll(() => countOf(endpoint, 'kiln_kv_values_memory_bytes')).toBeLessThan(2 << 20)
    expect(await countOf(endpoint, 'kiln_kv_values_disk_bytes')).toBeGreaterThan(6 << 20)
    for (const at of [0, 64, 127]) expect((await client.get(`/k/${at}`))?.value).toEqual(value(at))
    const { entries } = await client.getPrefix('/k/')
    expect(entries).toHaveLength(128)
    expect(await countOf(endpoint, 'kiln_kv_values_reads_total')).toBeGreaterThan(0)
  }
  await check()
  await member!.kill()
  await member!.start()
  await check()
}, 60_000)
