import type { PlanRecord } from '@kiln/linux'
import type { CgroupLayout } from './cgroup-layout.ts'
import { type DeviceRule, type Resources, refuse } from './config.ts'
import { compileDeviceFilter } from './device-filter.ts'

/** The container's folder in each hierarchy. */
export type Folders = { controllers: string[]; folder: string }[]

type Write = (
  controller: string,
  file: string,
  value: number | string | null | undefined,
  mayFail?: boolean,
) => void

/** What every container may use whatever its rules say (config-linux.md, Default Devices). */
export const defaultDeviceRules: DeviceRule[] = [
  ...[3, 5, 7, 8, 9].map((minor) => ({ allow: true, type: 'c', major: 1, minor, access: 'rwm' })),
  { allow: true, type: 'c', major: 5, minor: 0, access: 'rwm' },
  { allow: true, type: 'c', major: 5, minor: 1, access: 'rwm' },
  { allow: true, type: 'c', major: 5, minor: 2, access: 'rwm' },
  { allow: true, type: 'c', major: 136, minor: -1, access: 'rwm' },
  { allow: true, type: 'c', major: -1, minor: -1, access: 'm' },
  { allow: true, type: 'b', major: -1, minor: -1, access: 'm' },
]

const deviceTypes: Readonly<Record<string, string>> = { a: 'a', b: 'b', c: 'c', u: 'c' }

/** The limits as writes to cgroup files, in an order that the kernel takes. `update` changes a running container. */
export function resourceRecords(
  resources: Resources,
  layout: CgroupLayout,
  folders: Folders,
  { update, rootless }: { update: boolean; rootless: boolean },
): PlanRecord[] {
  const records: PlanRecord[] = []
  const write: Write = (controller, file, value, mayFail = false) => {
    if (value == null) return
    const place = folders.find((one) => layout.kind === 'v2' || one.controllers.includes(controller))
    if (!place) {
      if (!mayFail) refuse([`linux.resources: there is no ${controller} controller for ${file}`])
      return
    }
    records.push(['cgroupWrite', `${place.folder}/${file}`, String(value), mayFail ? 1 : 0])
  }
  checkDevices(resources)
  if (layout.kind === 'v2') unifiedWrites(resources, write, update)
  else {
    legacyWrites(resources, write, update)
    const key = Object.keys(resources.unified ?? {})[0]
    if (key) refuse([`config.linux.resources.unified.${key}: needs cgroup v2`])
  }
  const rules = deviceRules(resources.devices ?? undefined, update)
  // Rootless, no device can be made that the caller has not; the kernel lets only root filter them.
  if (rules.length === 0 || folders.length === 0 || rootless) return records
  if (layout.kind === 'v2') records.push(['cgroupDevices', folders[0]!.folder, compileDeviceFilter(rules)])
  else if (folders.some((one) => one.controllers.includes('devices'))) {
    for (const rule of rules)
      write('devices', rule.allow ? 'devices.allow' : 'devices.deny', deviceLine(rule))
  }
  return records
}

/** Nothing first, then the document's rules in their order, then what must work. An update without rules changes none. */
function deviceRules(rules: DeviceRule[] | undefined, update: boolean): DeviceRule[] {
  if (update && !rules?.length) return []
  return [{ allow: false, access: 'rwm' }, ...(rules ?? []).map(plainAccess), ...defaultDeviceRules]
}

/** As runc takes it: each of r, w and m once, and other letters beside them mean nothing. */
function plainAccess(rule: DeviceRule): DeviceRule {
  return { ...rule, access: [...'rwm'].filter((letter) => rule.access?.includes(letter)).join('') }
}

function checkDevices(resources: Resources): void {
  for (const [at, rule] of (resources.devices ?? []).entries()) {
    if (rule.type != null && rule.type !== '' && !Object.hasOwn(deviceTypes, rule.type))
      refuse([`linux.resources.devices.${at}.type: unknown ${JSON.stringify(rule.type)}`])
    if (rule.access && !/[rwm]/.test(rule.access))
      refuse([`linux.resources.devices.${at}.access: ${JSON.stringify(rule.access)} has none of r, w, m`])
  }
}

function deviceLine({ type, major, minor, access }: DeviceRule): string {
  const number = (value: number | null | undefined) => (value == null || value < 0 ? '*' : String(value))
  return `${deviceTypes[type || 'a']} ${number(major)}:${number(minor)} ${access || 'rwm'}`
}

function legacyWrites(resources: Resources, write: Write, update: boolean): void {
  const { memory, cpu, pids, blockIO, network } = resources
  if (memory) {
    // A greater limit needs its swap raised first, a smaller one last.
    if (update && memory.swap != null) write('memory', 'memory.memsw.limit_in_bytes', memory.swap, true)
    // No limit of memory alone is none of both.
    else if (memory.limit === -1) write('memory', 'memory.memsw.limit_in_bytes', -1, true)
    write('memory', 'memory.limit_in_bytes', memory.limit)
    write('memory', 'memory.memsw.limit_in_bytes', memory.swap)
    write('memory', 'memory.soft_limit_in_bytes', memory.reservation)
    write('memory', 'memory.kmem.tcp.limit_in_bytes', memory.kernelTCP)
    if (memory.swappiness != null && memory.swappiness > 100)
      refuse(['linux.resources.memory.swappiness: more than 100 needs cgroup v2'])
    write('memory', 'memory.swappiness', memory.swappiness)
    if (memory.disableOOMKiller) write('memory', 'memory.oom_control', 1)
    if (memory.useHierarchy) write('memory', 'memory.use_hierarchy', 1, true)
  }
  if (cpu) {
    write('cpu', 'cpu.shares', cpu.shares || undefined)
    write('cpu', 'cpu.cfs_period_us', cpu.period || undefined, update && cpu.quota != null)
    write('cpu', 'cpu.cfs_quota_us', cpu.quota || undefined)
    if (update && cpu.quota != null) write('cpu', 'cpu.cfs_period_us', cpu.period || undefined)
    write('cpu', 'cpu.cfs_burst_us', cpu.burst)
    write('cpu', 'cpu.rt_period_us', cpu.realtimePeriod || undefined, update && !!cpu.realtimeRuntime)
    write('cpu', 'cpu.rt_runtime_us', cpu.realtimeRuntime || undefined)
    if (update && cpu.realtimeRuntime) write('cpu', 'cpu.rt_period_us', cpu.realtimePeriod || undefined)
    write('cpu', 'cpu.idle', cpu.idle)
    write('cpuset', 'cpuset.cpus', cpu.cpus || undefined)
    write('cpuset', 'cpuset.mems', cpu.mems || undefined)
  }
  if (pids?.limit != null && pids.limit !== 0) write('pids', 'pids.max', pids.limit < 0 ? 'max' : pids.limit)
  if (blockIO) {
    write('blkio', 'blkio.bfq.weight', blockIO.weight || undefined)
    write('blkio', 'blkio.leaf_weight', blockIO.leafWeight || undefined)
    for (const device of blockIO.weightDevice ?? [])
      write(
        'blkio',
        'blkio.bfq.weight_device',
        device.weight && `${device.major}:${device.minor} ${device.weight}`,
      )
    const throttle = (file: string, list: typeof blockIO.throttleReadBpsDevice) => {
      for (const { major, minor, rate } of list ?? [])
        write('blkio', `blkio.throttle.${file}`, `${major}:${minor} ${rate}`)
    }
    throttle('read_bps_device', blockIO.throttleReadBpsDevice)
    throttle('write_bps_device', blockIO.throttleWriteBpsDevice)
    throttle('read_iops_device', blockIO.throttleReadIOPSDevice)
    throttle('write_iops_device', blockIO.throttleWriteIOPSDevice)
  }
  for (const { pageSize, limit } of resources.hugepageLimits ?? [])
    write('hugetlb', `hugetlb.${pageSize}.limit_in_bytes`, limit)
  if (network) {
    write('net_cls', 'net_cls.classid', network.classID)
    for (const { name, priority } of network.priorities ?? [])
      write('net_prio', 'net_prio.ifpriomap', `${name} ${priority}`)
  }
  rdmaWrites(resources, write)
}

/** `max` for the specification's -1. */
const bytes = (value: number | null | undefined) => (value == null ? undefined : value < 0 ? 'max' : value)

function unifiedWrites(resources: Resources, write: Write, update: boolean): void {
  const { memory, cpu, pids, blockIO } = resources
  if (memory) {
    const { limit, swap } = memory
    // The document counts memory and swap together, the kernel swap alone.
    if (swap != null && swap >= 0 && (limit == null || limit < 0))
      refuse(['linux.resources.memory.swap: needs a limit on cgroup v2'])
    if (swap != null && swap >= 0 && swap < limit!)
      refuse(['linux.resources.memory.swap: less than the limit'])
    write(
      'memory',
      'memory.swap.max',
      swap == null || swap === 0 ? undefined : swap < 0 ? 'max' : swap - limit!,
    )
    write('memory', 'memory.max', limit === 0 ? undefined : bytes(limit))
    write('memory', 'memory.low', bytes(memory.reservation))
  }
  if (cpu) {
    const { shares, quota, period } = cpu
    if (shares)
      write(
        'cpu',
        'cpu.weight',
        1 + Math.floor(((Math.min(Math.max(shares, 2), 262144) - 2) * 9999) / 262142),
      )
    const max = quota && quota > 0 ? String(quota) : 'max'
    // The quota alone leaves the kernel's period as it is, in a new group 100000.
    if (period) write('cpu', 'cpu.max', `${max} ${period}`)
    else if (quota) write('cpu', 'cpu.max', update ? max : `${max} 100000`)
    write('cpu', 'cpu.max.burst', cpu.burst)
    write('cpu', 'cpu.idle', cpu.idle)
    write('cpuset', 'cpuset.cpus', cpu.cpus || undefined)
    write('cpuset', 'cpuset.mems', cpu.mems || undefined)
    if (cpu.realtimeRuntime || cpu.realtimePeriod)
      refuse(['linux.resources.cpu: cgroup v2 has no real-time limits'])
  }
  if (pids?.limit != null && pids.limit !== 0) write('pids', 'pids.max', bytes(pids.limit))
  if (blockIO) {
    const { weight } = blockIO
    if (weight) {
      write('io', 'io.bfq.weight', weight, true)
      write('io', 'io.weight', `default ${1 + Math.floor(((Math.max(weight, 10) - 10) * 9999) / 990)}`, true)
    }
    for (const device of blockIO.weightDevice ?? [])
      write('io', 'io.bfq.weight', device.weight && `${device.major}:${device.minor} ${device.weight}`)
    const throttle = (name: string, list: typeof blockIO.throttleReadBpsDevice) => {
      for (const { major, minor, rate } of list ?? [])
        write('io', 'io.max', `${major}:${minor} ${name}=${rate === 0 ? 'max' : rate}`)
    }
    throttle('rbps', blockIO.throttleReadBpsDevice)
    throttle('wbps', blockIO.throttleWriteBpsDevice)
    throttle('riops', blockIO.throttleReadIOPSDevice)
    throttle('wiops', blockIO.throttleWriteIOPSDevice)
  }
  for (const { pageSize, limit } of resources.hugepageLimits ?? [])
    write('hugetlb', `hugetlb.${pageSize}.max`, limit)
  rdmaWrites(resources, write)
  // Last, so that what the document says in the kernel's own words holds.
  for (const [file, value] of Object.entries(resources.unified ?? {})) write('', file, value)
}

function rdmaWrites(resources: Resources, write: Write): void {
  for (const [device, { hcaHandles, hcaObjects }] of Object.entries(resources.rdma ?? {})) {
    const handles = hcaHandles == null ? [] : [`hca_handle=${hcaHandles}`]
    const objects = hcaObjects == null ? [] : [`hca_object=${hcaObjects}`]
    write('rdma', 'rdma.max', [device, ...handles, ...objects].join(' '))
  }
}

/** Turns on every controller of v2 from the root down to the container's parent; what a kernel lacks is no mistake here. */
export function enableRecords(mountPoint: string, folder: string): PlanRecord[] {
  const records: PlanRecord[] = []
  const parts = folder
    .slice(mountPoint.length)
    .split('/')
    .filter((part) => part !== '')
  for (let depth = 0; depth < parts.length; depth++) {
    const parent = [mountPoint, ...parts.slice(0, depth)].join('/')
    for (const controller of ['cpuset', 'cpu', 'io', 'memory', 'hugetlb', 'pids', 'rdma', 'misc'])
      records.push(['cgroupWrite', `${parent}/cgroup.subtree_control`, `+${controller}`, 1])
  }
  return records
}
