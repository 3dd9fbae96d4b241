import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import { afterEach, expect, test } from 'vitest'
import { startMembers } from './testing/member-process.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

const isRoot = process.getuid?.() === 0

test.skipIf(!isRoot)(
  `a member whose disk is full says so, and the other two go on${isRoot ? '' : ' (skipped: mounting a small disk needs root)'}`,
  async () => {
    const cluster = await startMembers({ count: 3 })
    ends.push(() => cluster.stop())
    const [full] = cluster.members
    await full!.stop()
    const aside = mkdtempSync(join(tmpdir(), 'kiln-full-'))
    cpSync(full!.dataDir, aside, { recursive: true })
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=72m', 'kiln-test', full!.dataDir])
    ends.push(
      () => execFileSync('umount', ['-l', full!.dataDir]),
      () => full!.kill(),
    )
    cpSync(aside, full!.dataDir, { recursive: true })
    rmSync(aside, { recursive: true })
    await full!.start()

    const client = new EtcdClient({ endpoints: cluster.endpoints.slice(1), timeoutMs: 10_000 })
    ends.push(() => client.close())
    const value = Buffer.alloc(1 << 20, 'v')
    for (let i = 0; i < 96; i++) await client.put(`/big/${i}`, value)
    expect((await client.getPrefix('/big/', { keysOnly: true })).count).toBe(96)
    await expect.poll(() => full!.output(), { timeout: 20_000 }).toMatch(/STORE_DISK_FULL|ENOSPC|no space/i)
    await client.put('/after', 'still here')
  },
  // It writes 300 MiB, which a busy host takes its time for.
  180_000,
)
