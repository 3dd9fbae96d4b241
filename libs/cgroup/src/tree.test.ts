import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cpuWeight, limitWrites } from './limits.ts'
import {
  applyLimits,
  createCgroup,
  enableControllers,
  isUnified,
  killCgroup,
  readProcesses,
  readStatistics,
  removeCgroup,
} from './tree.ts'

/** A folder with the files that the kernel would make. */
function fakeGroup(files: Record<string, string> = {}): string {
  const path = mkdtempSync(join(tmpdir(), 'kiln-cgroup-'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text)
  return path
}
const read = (path: string, file: string): string => readFileSync(join(path, file), 'utf8')

test('limits become the files of cgroup v2', () => {
  expect(limitWrites({ memoryBytes: 33554432, cpus: 0.5, cpusRequested: 1, pids: 32 })).toEqual([
    { file: 'memory.max', value: '33554432' },
    { file: 'memory.swap.max', value: '0' },
    { file: 'memory.oom.group', value: '1' },
    { file: 'cpu.max', value: '50000 100000' },
    { file: 'cpu.weight', value: '39' },
    { file: 'pids.max', value: '32' },
  ])
  expect(limitWrites({}).map((write) => write.value)).toEqual(['max', '1', 'max 100000', 'max'])
})

test('a tiny share of a core is the least the kernel takes, and weights stay in range', () => {
  expect(limitWrites({ cpus: 0.001 })).toContainEqual({ file: 'cpu.max', value: '1000 100000' })
  expect([0.001, 0.1, 1, 1000].map(cpuWeight)).toEqual([1, 4, 39, 10000])
})

test('only a hierarchy with all controllers is one to run pods in', async () => {
  expect(await isUnified(fakeGroup({ 'cgroup.controllers': 'cpuset cpu io memory hugetlb pids\n' }))).toBe(
    true,
  )
  expect(await isUnified(fakeGroup({ 'cgroup.controllers': 'hugetlb\n' }))).toBe(false)
  expect(await isUnified(fakeGroup())).toBe(false)
})

test('a group is made with its parents, limited, and lets its children be limited', async () => {
  const root = fakeGroup({ 'cgroup.subtree_control': '' })
  const path = join(root, 'pods/hello')
  await createCgroup(path)
  await createCgroup(path)
  await enableControllers(root)
  expect(read(root, 'cgroup.subtree_control')).toBe('+cpu +memory +pids')
  await applyLimits(path, { memoryBytes: 65536 })
  expect(read(path, 'memory.max')).toBe('65536')
  expect(existsSync(join(path, 'memory.swap.max'))).toBe(false)
})

test('statistics are read, and those of a group that is gone are undefined', async () => {
  const path = fakeGroup({
    'memory.current': '4096\n',
    'memory.peak': '8192\n',
    'cpu.stat': 'usage_usec 1234\nuser_usec 1000\n',
    'pids.current': '3\n',
    'memory.events': 'low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\n',
    'cgroup.procs': '10\n11\n',
  })
  expect(await readStatistics(path)).toEqual({
    memoryBytes: 4096,
    memoryPeakBytes: 8192,
    cpuMicroseconds: 1234,
    pids: 3,
    oomKills: 2,
  })
  expect(await readProcesses(path)).toEqual([10, 11])
  expect(await readStatistics(join(path, 'gone'))).toBeUndefined()
})

test('killing writes to cgroup.kill, and a group that is gone needs no killing', async () => {
  const path = fakeGroup({ 'cgroup.procs': '1\n', 'cgroup.kill': '' })
  await killCgroup(path)
  expect(read(path, 'cgroup.kill')).toBe('1')
  await killCgroup(join(path, 'gone'))
})

test('a group is removed from below, and a busy one is tried again', async () => {
  const path = fakeGroup()
  mkdirSync(join(path, 'a/b'), { recursive: true })
  let busy = 3
  const removed: string[] = []
  await removeCgroup(path, async (folder) => {
    if (busy-- > 0) throw Object.assign(new Error('busy'), { code: 'EBUSY' })
    removed.push(folder.slice(path.length))
    await rm(folder, { recursive: true })
  })
  expect(removed).toEqual(['/a/b', '/a', ''])
  expect(readdirSync(tmpdir())).not.toContain(path.split('/').at(-1))
  await removeCgroup(path)
  const stuck = removeCgroup(fakeGroup(), () =>
    Promise.reject(Object.assign(new Error(), { code: 'EACCES' })),
  )
  await expect(stuck).rejects.toMatchObject({ code: 'CGROUP_REMOVE_FAILED' })
})
