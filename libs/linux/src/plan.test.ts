import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { buildFuzz, buildNative } from './build.ts'
import { examplePlan } from './example-plan.ts'
import { operations, type Plan, planRecords } from './plan.ts'
import { decodePlan, encodePlan } from './plan-codec.ts'

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

test('the operations have the numbers of plan.h', () => {
  const header = readFileSync(join(import.meta.dirname, '../native/plan.h'), 'utf8')
  const names = [...header.matchAll(/^ {2}OP_([A-Z_]+)(?: = 1)?,/gm)].map((match) => match[1])
  const ours = Object.entries(operations).map(([name, [number]]) => [number, name] as const)
  expect(ours.map(([number]) => number)).toEqual(names.map((_, index) => index + 1))
  expect(ours.map(([, name]) => name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase())).toEqual(
    names,
  )
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
  const paths = [sandbox, examplePlan('/tmp/x'), exec].map((plan, index) => {
    const path = join(folder, `seed-${index}`)
    writeFileSync(path, encodePlan(plan))
    return path
  })
  for (const [index, path] of paths.entries()) {
    const output = execFileSync(fuzz, [path, String(index + 1), '35000'], { encoding: 'utf8' })
    const accepted = Number(/accepted=(\d+)/.exec(output)?.[1])
    expect(accepted).toBeGreaterThan(100)
    expect(accepted).toBeLessThan(34_000)
  }
}, 120_000)

const bigints = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? Number(value) : value)
