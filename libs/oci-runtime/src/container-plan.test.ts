import { decodePlan } from '@kiln/linux'
import { expect, test } from 'vitest'
import { planContainer } from './container-plan.ts'
import { planExec, planUpdate } from './exec-plan.ts'
import type { FrontRequest } from './request.ts'

const mountinfo = [
  '31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755',
  '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct',
  '33 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory',
  '34 31 0:32 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices',
  '35 31 0:33 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset',
].join('\n')
const cgroup = '4:cpuset:/\n3:devices:/\n2:memory:/user/me\n1:cpu,cpuacct:/\n0::/\n'
const unified = '30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw'

type Document = { [name: string]: unknown }
const config = (more: Document = {}, linux: Document = {}, process: Document = {}): string =>
  JSON.stringify({
    ociVersion: '1.2.0',
    root: { path: 'rootfs' },
    process: { args: ['sh'], cwd: '/', user: { uid: 0, gid: 0 }, ...process },
    linux: {
      namespaces: [{ type: 'mount' }, { type: 'pid' }, { type: 'network' }, { type: 'uts' }],
      ...linux,
    },
    ...more,
  })

const request = (document: string, more: Partial<FrontRequest> = {}): FrontRequest => ({
  command: 'create',
  args: ['--bundle', 'b', 'c1'],
  cwd: '/srv',
  listenFds: 0,
  mountinfo,
  cgroup,
  document,
  systemd: false,
  rootless: false,
  ...more,
})

const records = (document: string, more: Partial<FrontRequest> = {}) =>
  decodePlan(planContainer(request(document, more)).plan).records
const those = (operation: string, document: string, more: Partial<FrontRequest> = {}) =>
  records(document, more)
    .filter(([name]) => name === operation)
    .map(([, ...fields]) => fields)

test('paths are taken from where the caller is, and the state repeats the document', () => {
  const all = records(config({ annotations: { a: 'b' } }), { args: ['-b', 'b', '--pid-file=p', 'c1'] })
  expect(all).toContainEqual(['bundle', '/srv/b'])
  expect(all).toContainEqual(['pidFile', '/srv/p'])
  expect(all).toContainEqual(['root', '/srv/b/rootfs', (1 << 19) | 16384, 0])
  const state = all.find(([name]) => name === 'state')?.[1] as string
  expect(JSON.parse(`{${state}}`)).toEqual({
    ociVersion: '1.2.0',
    id: 'c1',
    bundle: '/srv/b',
    annotations: { a: 'b' },
  })
})

test('of v1 a group without a path lies below the caller, an absolute one below the mount, in every hierarchy', () => {
  expect(those('cgroupFolder', config())).toEqual([
    ['cpu,cpuacct', '/sys/fs/cgroup/cpu,cpuacct/c1', 0],
    ['memory', '/sys/fs/cgroup/memory/user/me/c1', 0],
    ['devices', '/sys/fs/cgroup/devices/c1', 0],
    ['cpuset', '/sys/fs/cgroup/cpuset/c1', 1],
  ])
  expect(those('cgroupFolder', config({}, { cgroupsPath: '/a/b' }))[1]).toEqual([
    'memory',
    '/sys/fs/cgroup/memory/a/b',
    0,
  ])
  expect(those('cgroupFolder', config({}, { cgroupsPath: 'a-b.slice:x:c1' }), { systemd: true })[1]).toEqual([
    'memory',
    '/sys/fs/cgroup/memory/a.slice/a-b.slice/x-c1.scope',
    0,
  ])
})

test('of v2 a group without a path lies beside the caller, whose group cannot hand controllers down', () => {
  const folder = (own: string, more: Document = {}) =>
    those('cgroupFolder', config({}, more), { mountinfo: unified, cgroup: `0::${own}\n` })[0]?.[1]
  expect(folder('/system.slice/a.service')).toBe('/sys/fs/cgroup/system.slice/c1')
  expect(folder('/system.slice/a.service', { cgroupsPath: 'x/y' })).toBe('/sys/fs/cgroup/system.slice/x/y')
  expect(folder('/system.slice/a.service', { cgroupsPath: '/x' })).toBe('/sys/fs/cgroup/x')
  expect(folder('/')).toBe('/sys/fs/cgroup/c1')
})

test('limits become writes, for v1 and for v2 in their own numbers', () => {
  const resources = { memory: { limit: 1000, swap: 3000 }, cpu: { shares: 1024, quota: 5, period: 10 } }
  expect(those('cgroupWrite', config({}, { resources })).map(([file, value]) => `${file} ${value}`)).toEqual(
    expect.arrayContaining([
      '/sys/fs/cgroup/memory/user/me/c1/memory.limit_in_bytes 1000',
      '/sys/fs/cgroup/memory/user/me/c1/memory.memsw.limit_in_bytes 3000',
      '/sys/fs/cgroup/cpu,cpuacct/c1/cpu.shares 1024',
      '/sys/fs/cgroup/devices/c1/devices.deny a *:* rwm',
      '/sys/fs/cgroup/devices/c1/devices.allow c 1:3 rwm',
    ]),
  )
  const v2 = { mountinfo: unified, cgroup: '0::/\n' }
  const written = those(
    'cgroupWrite',
    config({}, { resources: { ...resources, unified: { 'pids.max': '7' } } }),
    v2,
  )
  expect(written.map(([file, value]) => `${file} ${value}`)).toEqual(
    expect.arrayContaining([
      '/sys/fs/cgroup/cgroup.subtree_control +memory',
      '/sys/fs/cgroup/c1/memory.swap.max 2000',
      '/sys/fs/cgroup/c1/cpu.weight 39',
      '/sys/fs/cgroup/c1/cpu.max 5 10',
      '/sys/fs/cgroup/c1/pids.max 7',
    ]),
  )
  expect(those('cgroupDevices', config(), v2)).toHaveLength(1)
})

test('options of a bind set and clear its flags, with r before them of all below', () => {
  const options = ['rbind', 'ro', 'nosuid', 'rnodev', 'exec', 'rslave', 'relatime']
  const [mount] = those('attach', config({ mounts: [{ destination: '/m/../n', source: 's', options }] }))
  expect(mount).toEqual(['/srv/b/s', '/n', '', 3, 0, '', 3n, 0x78n, 4n, 0n, (1 << 19) | 16384, 0])
})

test('a file system keeps its own data, and proc and sysfs follow no symlink', () => {
  const mounts = [
    {
      destination: '/t',
      type: 'tmpfs',
      source: 'x',
      options: ['noexec', 'size=1k', 'mode=700', 'tmpcopyup'],
    },
    { destination: '/proc', type: 'proc', source: 'proc' },
  ]
  expect(those('attach', config({ mounts }))).toEqual([
    ['x', '/t', 'tmpfs', 4, 8, 'size=1k,mode=700', 8n, 0n, 0n, 0n, 0, 0],
    ['proc', '/proc', 'proc', 8, 0, '', 0n, 0n, 0n, 0n, 0, 0],
  ])
})

const refused: [string, string][] = [
  ['config.ociVersion', config({ ociVersion: '2.0.0' })],
  ['config.process.args', config({}, {}, { args: [] })],
  ['config.process.cwd', config({}, {}, { cwd: 'tmp' })],
  ['config.process.user.uid', config({}, {}, { user: { uid: 'root', gid: 0 } })],
  ['rlimits.0.type: unknown', config({}, {}, { rlimits: [{ type: 'RLIMIT_BOGUS', soft: 1, hard: 1 }] })],
  ['second time', config({}, { namespaces: [{ type: 'mount' }, { type: 'mount' }] })],
  ['namespaces.0.type: unknown', config({}, { namespaces: [{ type: 'bogus' }] })],
  ['a mount namespace is needed', config({}, { namespaces: [{ type: 'pid' }] })],
  ['without a UTS namespace', config({ hostname: 'h' }, { namespaces: [{ type: 'mount' }] })],
  ['belongs to the whole host', config({}, { sysctl: { 'kernel.panic': '1' } })],
  ['needs a ipc namespace', config({}, { sysctl: { 'kernel.shmmni': '1' } })],
  ['is no parameter', config({}, { sysctl: { 'net/../kernel/panic': '1' } })],
  ['goes up', config({}, { cgroupsPath: '/../x' })],
  ['no pids controller', config({}, { resources: { pids: { limit: 3 } } })],
  ['without a user namespace', config({}, { uidMappings: [{ containerID: 0, hostID: 1, size: 1 }] })],
  ['config.linux.intelRdt', config({}, { intelRdt: { closID: 'x' } })],
  ['config.linux.netDevices', config({}, { netDevices: { eth0: {} } })],
  ['needs --console-socket', config({}, {}, { terminal: true })],
]

test.each(refused)('refused by name: %s', (message, document) => {
  expect(() => planContainer(request(document))).toThrow(message)
})

test('exec takes over the process, and only what the command line says is otherwise', () => {
  const made = records(config({}, {}, { env: ['PATH=/bin', 'A=1'], noNewPrivileges: true }))
  const base = made.find(([name]) => name === 'processJson')?.[1] as string
  const line = { command: 'exec', args: ['-u', '7:8', '-e', 'A=2', '--cwd', '/t', 'c1', 'id', '-u'], base }
  const { records: plan } = decodePlan(planExec({ ...request(''), ...line, document: undefined }).plan)
  expect(plan).toContainEqual(['process', 7, 8, 0o022, 1 | 4, 1000])
  expect(plan.filter(([name]) => name === 'argument')).toEqual([
    ['argument', 'id'],
    ['argument', '-u'],
  ])
  expect(plan.filter(([name]) => name === 'environment')).toEqual([
    ['environment', 'PATH=/bin'],
    ['environment', 'A=2'],
  ])
  const update = { command: 'update', args: ['--memory', '2k', 'c1'], base, document: undefined }
  expect(decodePlan(planUpdate({ ...request(''), ...update })).records).toContainEqual([
    'cgroupWrite',
    '/sys/fs/cgroup/memory/user/me/c1/memory.limit_in_bytes',
    '2048',
    0,
  ])
})

test('an option that would have no effect here is refused, not swallowed', () => {
  const made = records(config())
  const base = made.find(([name]) => name === 'processJson')?.[1] as string
  const ask = (command: string, ...args: string[]) => ({ ...request(config()), command, base, args })
  expect(() => planContainer(ask('create', '--no-such', 's', 'c1'))).toThrow(/--no-such/)
  expect(() => planContainer(ask('create', '--preserve-fds', '2000', 'c1'))).toThrow(/--preserve-fds/)
  expect(() => planUpdate({ ...ask('update', '--kernel-memory', '1', 'c1'), document: undefined })).toThrow(
    /--kernel-memory/,
  )
})

test('letters of a device access count once, and others beside them not at all', () => {
  const devices = (access: string) => [{ allow: true, type: 'c', major: 1, minor: 11, access }]
  const made = (access: string) =>
    those('cgroupWrite', config({}, { resources: { devices: devices(access) } }))[1]
  expect(made('rwa')?.[1]).toBe('c 1:11 rw')
  expect(made('mrrwr')?.[1]).toBe('c 1:11 rwm')
  expect(made('')?.[1]).toBe('c 1:11 rwm')
  expect(() => made('a')).toThrow('has none of r, w, m')
})

test('the options of an update may come after the id, and nothing it says is passed over', () => {
  const update = (args: string[], more: Partial<FrontRequest> = {}, cpu = {}): unknown[] => {
    const made = records(config({}, { resources: { cpu } }), more)
    const base = made.find(([name]) => name === 'processJson')?.[1] as string
    const plan = planUpdate({ ...request(''), ...more, command: 'update', args, base, document: undefined })
    return decodePlan(plan).records.flatMap(([name, file, value]) =>
      name === 'cgroupWrite' ? [`${file} ${value}`] : [],
    )
  }
  const groups = '/sys/fs/cgroup'
  expect(update(['c1', '--cpuset-cpus', '1'])).toEqual([`${groups}/cpuset/c1/cpuset.cpus 1`])
  expect(update(['c1', '--cpu-period=9'])).toEqual([`${groups}/cpu,cpuacct/c1/cpu.cfs_period_us 9`])
  // A period below the runtime that is still there is refused at first.
  expect(update(['c1', '--cpu-rt-period', '9', '--cpu-rt-runtime', '3'])).toEqual([
    `${groups}/cpu,cpuacct/c1/cpu.rt_period_us 9`,
    `${groups}/cpu,cpuacct/c1/cpu.rt_runtime_us 3`,
    `${groups}/cpu,cpuacct/c1/cpu.rt_period_us 9`,
  ])
  // Memory may have no limit only where memory and swap together have none.
  expect(update(['c1', '--memory', '-1'])).toEqual([
    `${groups}/memory/user/me/c1/memory.memsw.limit_in_bytes -1`,
    `${groups}/memory/user/me/c1/memory.limit_in_bytes -1`,
  ])
  expect(() => update(['c1', 'c2'])).toThrow('one container id')
  expect(() => update(['--cpu-period', '9'])).toThrow('one container id')
  // The one file of v2 has both: what is not said stays.
  const two = { mountinfo: unified, cgroup: '0::/\n' }
  expect(update(['c1', '--cpuset-cpus', '1'], two)).toEqual([`${groups}/c1/cpuset.cpus 1`])
  expect(update(['c1', '--cpu-period', '9000'], two, { quota: 5000 })).toEqual([
    `${groups}/c1/cpu.max 5000 9000`,
  ])
  expect(update(['c1', '--cpu-period', '9000'], two)).toEqual([`${groups}/c1/cpu.max max 9000`])
  expect(update(['c1', '--cpu-quota', '5000'], two)).toEqual([`${groups}/c1/cpu.max 5000`])
})

test('a label of mounts goes to file systems that keep none of their own', () => {
  const mounts = ['tmpfs', 'proc'].map((type) => ({ destination: `/${type}`, type, options: ['x=1'] }))
  const made = those('attach', config({ mounts }, { mountLabel: 'a:b:c,d' }))
  expect(made.map((fields) => fields[5])).toEqual(['x=1,context="a:b:c,d"', 'x=1'])
  expect(() => records(config({ mounts }, { mountLabel: '"' }))).toThrow('mountLabel')
})

test('a check before an update is not made, so it is refused', () => {
  const base = records(config()).find(([name]) => name === 'processJson')?.[1] as string
  const document = JSON.stringify({ memory: { limit: 1, checkBeforeUpdate: true } })
  expect(() => planUpdate({ ...request(document), args: ['c1'], base })).toThrow('checkBeforeUpdate')
})

test('rootless, groups may be missing and devices are not filtered, but a limit must be kept', () => {
  const resources = { memory: { limit: 1000 } }
  const made = records(config({}, { resources }), { rootless: true })
  expect(made.filter(([name]) => name === 'cgroupFolder').map((one) => one[3])).toEqual([2, 2, 2, 3])
  expect(made.filter(([name]) => name === 'cgroupWrite')).toEqual([
    ['cgroupWrite', '/sys/fs/cgroup/memory/user/me/c1/memory.limit_in_bytes', '1000', 0],
  ])
})

test('descriptors of a socket unit are kept and announced', () => {
  const made = records(config(), { listenFds: 2, args: ['--preserve-fds', '1', 'c1'] })
  expect(made.find(([name]) => name === 'options')?.[2]).toBe(3)
  expect(made.filter(([name]) => name === 'environment')).toEqual([
    ['environment', 'LISTEN_FDS=2'],
    ['environment', 'LISTEN_PID=1'],
  ])
})

test('the scheduler, the class of I/O and the personality are those of the document', () => {
  const process = {
    scheduler: { policy: 'SCHED_FIFO', priority: 7, flags: ['SCHED_FLAG_RESET_ON_FORK'] },
    ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 5 },
  }
  const made = records(config({}, { personality: { domain: 'LINUX32' } }, process))
  expect(made).toContainEqual(['scheduler', 1, 20, 7, 1n, 0n, 0n, 0n])
  expect(made).toContainEqual(['ioPriority', (2 << 13) | 5])
  expect(made).toContainEqual(['personality', 8])
  expect(() => records(config({}, {}, { scheduler: { policy: 'SCHED_NICE' } }))).toThrow('scheduler.policy')
  expect(() => records(config({}, {}, { ioPriority: { class: 'FAST' } }))).toThrow('ioPriority.class')
})

test('offsets of a new time namespace become lines for it, and need one', () => {
  const timeOffsets = { monotonic: { secs: -5 }, boottime: { secs: 7, nanosecs: 9 } }
  const namespaces = [{ type: 'mount' }, { type: 'time' }]
  expect(those('timeOffset', config({}, { namespaces, timeOffsets }))).toEqual([
    ['monotonic -5 0\n'],
    ['boottime 7 9\n'],
  ])
  expect(() => records(config({}, { timeOffsets }))).toThrow('without a new time namespace')
})

test('of v2 exec enters the group below that the first process went to', () => {
  const own = { mountinfo: unified, cgroup: '0::/system.slice/a.service\n' }
  const base = records(config(), own).find(([name]) => name === 'processJson')?.[1] as string
  const group = (now: string, args: string[] = []) => {
    const cgroup = `0::${now}\n`
    const asked = {
      ...request(''),
      command: 'exec',
      base,
      args: [...args, 'c1', 'id'],
      document: undefined,
      cgroup,
    }
    return decodePlan(planExec(asked).plan).records.find(([name]) => name === 'cgroupFolder')?.[2]
  }
  expect(group('/system.slice/c1/init')).toBe('/sys/fs/cgroup/system.slice/c1/init')
  expect(group('/system.slice/c1')).toBeUndefined()
  expect(group('/system.slice/c1-other/init')).toBeUndefined()
  expect(group('/system.slice/c1/init', ['--cgroup', '/sub'])).toBe('/sys/fs/cgroup/system.slice/c1/sub')
})

test('exec may choose a group below, where it runs and who is told of it', () => {
  const made = records(config({}, { personality: { domain: 'LINUX32' } }))
  const base = made.find(([name]) => name === 'processJson')?.[1] as string
  const exec = (args: string[], document?: string) =>
    decodePlan(planExec({ ...request(''), command: 'exec', base, args, document }).plan).records
  const process = JSON.stringify({ args: ['id'], cwd: '/', execCPUAffinity: { initial: '0-1', final: '65' } })
  const plan = exec(['--cgroup', 'memory:/sub', '--pidfd-socket', 's', '-w', '/', 'c1'], process)
  expect(plan.filter(([name]) => name === 'cgroupFolder').map((one) => one[2])).toEqual([
    '/sys/fs/cgroup/cpu,cpuacct/c1',
    '/sys/fs/cgroup/memory/user/me/c1/sub',
    '/sys/fs/cgroup/devices/c1',
    '/sys/fs/cgroup/cpuset/c1',
  ])
  expect(plan).toContainEqual(['pidfdSocket', '/srv/s'])
  expect(plan).toContainEqual(['personality', 8])
  const masks = plan.filter(([name]) => name === 'cpuAffinity')
  expect(masks.map(([, when, mask]) => [when, Buffer.from(mask as Buffer).toString('hex')])).toEqual([
    [0, '0300000000000000'],
    [1, '00000000000000000200000000000000'],
  ])
  expect(exec(['--cgroup', '/../..', 'c1', 'id']).find(([name]) => name === 'cgroupFolder')?.[2]).toBe(
    '/sys/fs/cgroup/cpu,cpuacct/c1',
  )
  expect(() => exec(['--cgroup', 'pids:/x', 'c1', 'id'])).toThrow('no group of controller "pids"')
  const bad = JSON.stringify({ args: ['id'], cwd: '/', execCPUAffinity: { final: '3-1' } })
  expect(() => exec(['c1'], bad)).toThrow('execCPUAffinity.final: "3-1" is no list of CPUs')
})
