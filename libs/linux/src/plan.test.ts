import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { buildFuzz, buildNative } from './build.ts'
import { examplePlan } from './example-plan.ts'
import { operations, type Plan, type PlanRecord, planRecords } from './plan.ts'
import { decodePlan, encodePlan, encodeRecords } from './plan-codec.ts'

const folder = mkdtempSync(join(tmpdir(), 'kiln-plan-'))
let init = ''
let fuzz = ''

beforeAll(async () => {
  init = await buildNative(folder)
  fuzz = await buildFuzz(join(folder, 'fuzz'))
}, 120_000)

const sandbox: Plan = {
  kind: 'sandbox',
  id: 'hello',
  runningFile: '/run/hello/running',
  namespaces: ['network', 'ipc', 'uts'],
  hostname: 'hello',
  loopback: true,
}

const exec: Plan = {
  kind: 'exec',
  id: 'hello/web',
  join: { pid: 7, startTime: '99', namespaces: ['mount', 'pid'] },
  process: examplePlan('/tmp/x').process,
}

/** A container of the OCI command line, with one of every operation that only it has. */
const oci: PlanRecord[] = [
  ['id', 'c1'],
  ['bundle', '/b'],
  ['state', '"id":"c1"'],
  ['processJson', '{}'],
  ['options', 1, 2],
  ['namespaces', 0x20020000],
  ['namespacePath', 0x40000000, '/proc/1/ns/net'],
  ['idMap', 1, 0, 0, 1000, 10],
  ['timeOffset', 'boottime 1 0'],
  ['cgroupFolder', 'cpuset', '/sys/fs/cgroup/cpuset/c1', 1],
  ['cgroupWrite', '/sys/fs/cgroup/cpuset/c1/cpuset.cpus', '0', 0],
  ['cgroupDevices', '/sys/fs/cgroup/c1', Buffer.alloc(16)],
  ['root', '/b/rootfs', 1 << 19, 0],
  ['attach', '/s', '/t', '', 3, 0, '', 1n, 0n, 0n, 0n, 1 << 18, 1],
  ['sysctl', '/net/ipv4/ip_forward', '1'],
  ['domainname', 'd'],
  ['hook', 0, '/bin/true', 3],
  ['hookArgument', 'true'],
  ['hookEnvironment', 'A=1'],
  ['seccomp', 0, Buffer.alloc(24), '/l', 'm'],
  ['console', '/c', 24, 80],
  ['pidFile', '/p'],
  ['labels', 'profile', ''],
  ['scheduler', 0, 20, 0, 0n, 0n, 0n, 0n],
  ['ioPriority', 7],
  ['personality', 0],
  ['capabilities', 1n, 1n, 1n, 0n, 0n],
  ['process', 0, 0, 0o022, 4, 1000],
  ['cwd', '/'],
  ['argument', 'sh'],
]

/** What kiln-init says about these bytes: undefined is accepted. */
function verdict(bytes: Buffer): string | undefined {
  const path = join(folder, 'plan')
  writeFileSync(path, bytes)
  try {
    execFileSync(init, ['check', path], { encoding: 'utf8' })
    return undefined
  } catch (error) {
    return (JSON.parse((error as { stdout: string }).stdout) as { error: { step: string } }).error.step
  }
}

test('every kind of plan reads back as written and is accepted by kiln-init', () => {
  for (const plan of [sandbox, examplePlan('/tmp/x'), exec]) {
    const bytes = encodePlan(plan)
    expect(JSON.stringify(decodePlan(bytes).records, bigints)).toBe(
      JSON.stringify(planRecords(plan), bigints),
    )
    expect(verdict(bytes)).toBeUndefined()
  }
})

test('an OCI plan is accepted as it is, and refused with a flag or a namespace that nobody knows', () => {
  const told = (records: PlanRecord[]): string | undefined =>
    verdict(encodeRecords('ociCreate', 'c1', records))
  const changed = (name: string, ...fields: (number | string)[]): PlanRecord[] =>
    oci.map((record) => (record[0] === name ? ([name, ...fields] as PlanRecord) : record))
  expect(told(oci)).toBeUndefined()
  expect(told(changed('namespacePath', 0x60000000, '/proc/1/ns/net'))).toMatch(/bad namespace/)
  expect(told(changed('options', 1 << 20, 0))).toMatch(/bad options/)
  expect(told(changed('hook', 9, '/bin/true', 0))).toMatch(/unknown kind of hook/)
  expect(told(changed('sysctl', '/net/../kernel/panic', '1'))).toMatch(/bad sysctl/)
  expect(told(oci.filter(([name]) => name !== 'root'))).toMatch(/required record/)
})

test('the operations have the numbers of plan.h', () => {
  const header = readFileSync(join(import.meta.dirname, '../native/plan.h'), 'utf8')
  const names = [...header.matchAll(/^ {2}OP_([A-Z_]+)(?: = 1)?,/gm)].map((match) => match[1])
  const theirs = names.map((name, index) => `${index + 1} ${name}`).filter((one) => !one.endsWith(' RETIRED'))
  const ours = Object.entries(operations).map(
    ([name, [number]]) => `${number} ${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`,
  )
  expect(ours).toEqual(theirs)
})

test('a plan that is cut off, longer, of another version or with an unknown operation is refused', () => {
  const bytes = encodePlan(examplePlan('/tmp/x'))
  const changed = (at: number, value: number): Buffer => {
    const copy = Buffer.from(bytes)
    copy.writeUInt16LE(value, at)
    return copy
  }
  expect(verdict(bytes.subarray(0, bytes.length - 1))).toMatch(/header does not match/)
  expect(verdict(Buffer.concat([bytes, Buffer.alloc(1)]))).toMatch(/header does not match/)
  expect(verdict(Buffer.alloc(0))).toMatch(/bad length/)
  expect(verdict(changed(0, 0))).toMatch(/bad magic/)
  expect(verdict(changed(8, 2))).toMatch(/version/)
  expect(verdict(changed(10, 9))).toMatch(/kind/)
  expect(verdict(changed(24, 999))).toMatch(/unknown operation/)
})

test('a plan that asks for what its kind may not have, or lacks what it needs, is refused', () => {
  const plan = examplePlan('/tmp/x')
  const withoutArguments = { ...plan, process: { ...plan.process, args: [] } }
  expect(verdict(encodePlan(withoutArguments))).toMatch(/required record/)
  const relative = { ...plan, masked: ['proc/kcore'] }
  expect(verdict(encodePlan(relative))).toMatch(/not absolute/)
  const bytes = encodePlan(plan)
  bytes.writeUInt16LE(1, 10)
  expect(verdict(bytes)).toMatch(/not allowed in this kind/)
})

test('a text with a NUL byte is refused before it is written', () => {
  const plan = examplePlan('/tmp/x')
  expect(() => encodePlan({ ...plan, id: 'a\0b' })).toThrow(/NUL/)
})

test('the parser survives a hundred thousand damaged plans under the sanitizers', () => {
  const plans = [
    ...[sandbox, examplePlan('/tmp/x'), exec].map(encodePlan),
    encodeRecords('ociCreate', 'c1', oci),
  ]
  const paths = plans.map((plan, index) => {
    const path = join(folder, `seed-${index}`)
    writeFileSync(path, plan)
    return path
  })
  for (const [index, path] of paths.entries()) {
    const output = execFileSync(fuzz, [path, String(index + 1), '26000'], { encoding: 'utf8' })
    const accepted = Number(/accepted=(\d+)/.exec(output)?.[1])
    expect(accepted).toBeGreaterThan(100)
    expect(accepted).toBeLessThan(25_500)
  }
}, 120_000)

const bigints = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? Number(value) : value)
