import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { beforeAll, expect, test } from 'vitest'
import { leftovers, prepare, unable } from './testing/bundle.ts'

/** A container's groups on this host: made, limited again, and shared. */
const v1 = existsSync('/sys/fs/cgroup/cpuset/cpuset.cpus')
const why = unable ?? (v1 ? undefined : 'cgroup v1 is not mounted')
if (why) console.log(`skipped: the groups of kiln-oci on this host: ${why}`)
const onHost = test.skipIf(why !== undefined)

let host: Awaited<ReturnType<typeof prepare>>
beforeAll(async () => {
  host = await prepare()
}, 120_000)

const groups = '/sys/fs/cgroup'
const limitOf = (file: string): string => readFileSync(`${groups}/${file}`, 'utf8').trim()

onHost('an update is made wherever its options stand', () => {
  const { oci, bundle } = host
  const folder = bundle('exec sleep 100', { linux: { cgroupsPath: '/kiln-oci-test-update' } })
  expect(oci(['run', '--detach', '--bundle', folder, 'updated']).err).toBe('')
  const update = (args: string[], input = '') => {
    const options = input === '' ? {} : { input }
    expect(oci(['update', ...args], options)).toEqual({ code: 0, out: '', err: '' })
  }
  update(['updated', '--cpu-period', '90000'])
  expect(limitOf('cpu/kiln-oci-test-update/cpu.cfs_period_us')).toBe('90000')
  update(['updated', '-r', '-'], '{"cpu":{"period":80000}}')
  expect(limitOf('cpu/kiln-oci-test-update/cpu.cfs_period_us')).toBe('80000')
  const last = /\d+$/.exec(limitOf('cpuset/cpuset.cpus'))![0]
  update(['updated', '--cpuset-cpus', last])
  expect(limitOf('cpuset/kiln-oci-test-update/cpuset.cpus')).toBe(last)
  const memory = 'memory/kiln-oci-test-update/memory.limit_in_bytes'
  update(['updated', '--memory', '64m', '--memory-swap', '64m'])
  expect(limitOf(memory)).toBe(String(64 << 20))
  update(['updated', '--memory', '-1'])
  expect(limitOf(memory)).toBe(limitOf('memory/memory.limit_in_bytes'))
  expect(oci(['update', 'updated', 'other']).err).toContain('one container id')
  expect(oci(['delete', 'updated', '--force']).code).toBe(0)
})

onHost(
  'below groups that someone else made and left without CPUs, a container gets those of the host',
  () => {
    const { oci, bundle } = host
    const pod = 'kiln-oci-test-pod'
    mkdirSync(`${groups}/cpuset/${pod}/inner`, { recursive: true })
    expect(limitOf(`cpuset/${pod}/cpuset.cpus`)).toBe('')
    const folder = bundle('exec sleep 100', { linux: { cgroupsPath: `/${pod}/inner/one` } })
    expect(oci(['run', '--detach', '--bundle', folder, 'below'])).toEqual({ code: 0, out: '', err: '' })
    for (const file of ['cpuset.cpus', 'cpuset.mems'])
      expect(limitOf(`cpuset/${pod}/inner/one/${file}`)).toBe(limitOf(`cpuset/${file}`))
    oci(['delete', '--force', 'below'])
    for (const hierarchy of readdirSync(groups))
      for (const path of [`${pod}/inner`, pod])
        if (existsSync(`${groups}/${hierarchy}/${path}`)) rmdirSync(`${groups}/${hierarchy}/${path}`)
  },
)

onHost('a group that has processes already is used, with a warning', () => {
  const { oci, bundle } = host
  const linux = { cgroupsPath: '/kiln-oci-test-shared' }
  expect(oci(['run', '--detach', '--bundle', bundle('exec sleep 100', { linux }), 'first']).err).toBe('')
  const second = oci(['create', '--bundle', bundle('exec sleep 100', { linux }), 'second'])
  expect(second.code).toBe(0)
  expect(second.err).toContain("warning: container's cgroup is not empty: 1 process")
  oci(['delete', '--force', 'second'])
  oci(['delete', '--force', 'first'])
})

onHost('a group that someone froze is refused and left as it is', () => {
  const { base, root, oci, bundle } = host
  const freezer = `${groups}/freezer/kiln-oci-test-frozen`
  mkdirSync(freezer)
  writeFileSync(`${freezer}/freezer.state`, 'FROZEN')
  const folder = bundle('true', { linux: { cgroupsPath: '/kiln-oci-test-frozen' } })
  for (let times = 0; times < 2; times++) {
    const done = oci(['run', '--bundle', folder, 'icy'])
    expect(done).toEqual({ code: 1, out: '', err: "kiln-oci: container's cgroup unexpectedly frozen\n" })
  }
  expect(leftovers(base, root, 'icy')).toEqual([])
  rmdirSync(freezer)
  expect(oci(['run', '--bundle', folder, 'icy']).code).toBe(0)
})
