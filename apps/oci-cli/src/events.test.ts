import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { beforeAll, expect, test } from 'vitest'
import { durationMs } from './events.ts'
import { prepare, unable } from './testing/bundle.ts'

/** What only prints: the events of a container, and the default document. */
const groups = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes')
const why = unable ?? (groups ? undefined : 'the memory controller of cgroup v1 is not mounted')
if (why) console.log(`skipped: events of kiln-oci on this host: ${why}`)
const onHost = test.skipIf(why !== undefined)

let host: Awaited<ReturnType<typeof prepare>>
beforeAll(async () => {
  if (unable === undefined) host = await prepare()
}, 120_000)

test('an interval is a duration as Go writes it', () => {
  expect(['100ms', '1s', '1.5s', '1m30s', '2', '1h'].map(durationMs)).toEqual([
    100, 1000, 1500, 90_000, 2000, 3_600_000,
  ])
  expect(['', 'ms', '1x', '-1s', '1s x', '1 s'].map(durationMs)).toEqual(Array(6).fill(undefined))
})

onHost('events come at each interval and when memory ran out, until the container is gone', async () => {
  const { oci, bundle, command, root } = host
  const folder = bundle('exec sleep 100', {
    linux: { resources: { memory: { limit: 16 << 20, swap: 16 << 20 } } },
  })
  expect(oci(['events', '--interval', '1ms', 'watched']).err).toContain('at least 100ms')
  expect(oci(['events', 'watched']).err).toContain('does not exist')
  expect(oci(['run', '--detach', '--bundle', folder, 'watched']).err).toBe('')
  const events = spawn(command, ['--root', root, 'events', '--interval', '100ms', 'watched'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(events, 'exit')
  const seen: { type: string; id: string; data?: { memory: { usage: { limit: number } } } }[] = []
  for await (const line of createInterface({ input: events.stdout })) {
    seen.push(JSON.parse(line))
    if (seen.length === 3)
      oci(['exec', 'watched', '/bin/sh', '-c', 'x=$(head -c 64m /dev/zero | tr "\\0" x)'])
    if (seen.at(-1)?.type === 'oom') oci(['delete', '--force', 'watched'])
  }
  expect((await ended)[0]).toBe(0)
  expect(seen.slice(0, 3).map(({ type }) => type)).toEqual(['stats', 'stats', 'stats'])
  expect(seen[0]?.data?.memory.usage.limit).toBe(16 << 20)
  expect(seen.filter(({ type }) => type === 'oom')[0]).toEqual({ type: 'oom', id: 'watched' })
})

test.skipIf(unable !== undefined)(
  'the default document has a cgroup namespace where the host has cgroup v2',
  () => {
    const { base, oci } = host
    const kinds = (...args: string[]): string[] => {
      const folder = join(base, `spec${args.length}`)
      mkdirSync(folder)
      expect(oci(['spec', '--bundle', folder, ...args])).toEqual({ code: 0, out: '', err: '' })
      const { linux } = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
      return linux.namespaces.map((one: { type: string }) => one.type)
    }
    const last = existsSync('/sys/fs/cgroup/cgroup.controllers') ? ['cgroup'] : []
    expect(kinds()).toEqual(['pid', 'network', 'ipc', 'uts', 'mount', ...last])
    expect(kinds('--rootless')).toEqual(['pid', 'user', 'ipc', 'uts', 'mount', ...last])
  },
)
