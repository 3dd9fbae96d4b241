import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identifyProcess } from '@kiln/vm'
import { afterAll, expect, test } from 'vitest'
import type { CommandContext } from '../commands/context.ts'
import { down } from '../commands/down.ts'
import { planMachine } from './lab-plan.ts'
import {
  createStateFolder,
  findCluster,
  readLab,
  refuseOtherShape,
  requireLab,
  runningHost,
  stateFolder,
  writeLab,
} from './state-folder.ts'
import { withStateLock } from './state-lock.ts'

const base = mkdtempSync(join(tmpdir(), 'kiln-state-'))
afterAll(() => rmSync(base, { recursive: true, force: true }))

function folder(name: string): ReturnType<typeof stateFolder> {
  const state = stateFolder(join(base, name), {})
  createStateFolder(state)
  return state
}

const lab = {
  formatVersion: 1 as const,
  kind: 'virtual' as const,
  createdAt: '2026-01-01T00:00:00Z',
  version: '0.1.0',
  ...{ memoryMiB: 1024, cpus: 1, accelerator: 'tcg' as const, bootPort: 1, bootTlsPort: 2, complete: true },
  machines: [planMachine(1, 3)],
}

test('without --state the folder is below the state directory of the user', () => {
  expect(stateFolder(undefined, { HOME: '/home/u' }).root).toBe('/home/u/.local/state/kiln/default')
  expect(stateFolder(undefined, { HOME: '/home/u', XDG_STATE_HOME: '/s' }).root).toBe('/s/kiln/default')
})

test('a folder that cannot be is refused, where Node would try for ever', () => {
  for (const path of ['/proc/kiln', '/proc/kiln/below', join(base, 'a-file', 'below')]) {
    writeFileSync(join(base, 'a-file'), '')
    const create = (): void => createStateFolder(stateFolder(path, {}))
    expect(create).toThrow(expect.objectContaining({ code: 'STATE_FOLDER' }))
  }
  folder('two/levels')
  expect(statSync(join(base, 'two/levels')).mode & 0o777).toBe(0o700)
})

test('a folder with anything else is neither taken nor removed', async () => {
  const root = join(base, 'foreign')
  for (const name of ['boot', 'machines', 'precious']) mkdirSync(join(root, name), { recursive: true })
  const state = stateFolder(root, {})
  expect(() => createStateFolder(state)).toThrow(expect.objectContaining({ code: 'STATE_FOLDER' }))
  const told: string[] = []
  const context = { environment: {}, print: (text: string) => told.push(text) } as unknown as CommandContext
  await expect(down({ state: root, keep: false }, context)).rejects.toMatchObject({ code: 'CLUSTER_UNKNOWN' })
  expect(readdirSync(root).sort()).toEqual(['boot', 'machines', 'precious'])

  // Neither a lock of another program nor a record that happens to have our name makes a folder Kiln's.
  for (const [name, text] of [
    ['lock.mdb', ''],
    ['lab.json', '{"rooms": 3}'],
  ] as const) {
    const other = stateFolder(join(base, `foreign-${name}`), {})
    mkdirSync(other.root)
    writeFileSync(join(other.root, name), text)
    expect(() => createStateFolder(other)).toThrow(expect.objectContaining({ code: 'STATE_FOLDER' }))
    await expect(down({ state: other.root, keep: false }, context)).rejects.toMatchObject({
      code: 'CLUSTER_UNKNOWN',
    })
    expect(readdirSync(other.root)).toEqual([name])
  }

  const own = folder('own')
  await writeLab(own, lab)
  // Twice is no harm, and neither is a half-written record.
  createStateFolder(own)
  writeFileSync(own.lab, '{')
  mkdirSync(own.bootData)
  writeFileSync(join(own.root, 'thesis.txt'), 'x')
  await down({ state: own.root, keep: false }, context)
  expect(readdirSync(own.root)).toEqual(['thesis.txt'])
  expect(told.pop()).toContain('thesis.txt')

  // One of an earlier version has its record, and no mark.
  const older = stateFolder(join(base, 'older'), {})
  mkdirSync(older.root)
  await writeLab(older, lab)
  writeFileSync(join(older.root, 'thesis.txt'), 'x')
  await down({ state: older.root, keep: false }, context)
  expect(readdirSync(older.root)).toEqual(['thesis.txt'])
  rmSync(join(older.root, 'thesis.txt'))
  await writeLab(older, lab)
  await down({ state: older.root, keep: false }, context)
  expect(existsSync(older.root)).toBe(false)
})

test('what was written is read back', async () => {
  const state = folder('written')
  await writeLab(state, lab)
  expect(readLab(state)).toEqual(lab)
})

test('a folder without a cluster says how to get one', () => {
  expect(() => requireLab(folder('empty'))).toThrow(expect.objectContaining({ code: 'CLUSTER_UNKNOWN' }))
})

test('a record of a version that is not known is refused, not guessed', () => {
  const state = folder('newer')
  writeFileSync(state.lab, JSON.stringify({ ...lab, formatVersion: 2 }))
  expect(() => readLab(state)).toThrow(expect.objectContaining({ code: 'STATE_INVALID' }))
})

test('half a record is refused', () => {
  const state = folder('torn')
  writeFileSync(state.lab, JSON.stringify(lab).slice(0, 40))
  expect(() => readLab(state)).toThrow(expect.objectContaining({ code: 'STATE_INVALID' }))
})

test('a process that only has the recorded number is no running cluster', () => {
  const state = folder('stale')
  const host = identifyProcess(process.pid)!
  writeFileSync(state.processes, JSON.stringify({ host, others: {} }))
  expect(runningHost(state)).toEqual(host)
  writeFileSync(
    state.processes,
    JSON.stringify({ host: { ...host, startTicks: host.startTicks - 1 }, others: {} }),
  )
  expect(runningHost(state)).toBeUndefined()
})

test('a cluster that never was whole is gone on with while it runs, and otherwise counts as none', async () => {
  const state = folder('unfinished')
  const host = identifyProcess(process.pid)!
  const runs = (now: boolean): void =>
    now
      ? writeFileSync(state.processes, JSON.stringify({ host, others: {} }))
      : rmSync(state.processes, { force: true })
  expect(findCluster(state)).toBeUndefined()
  for (const [complete, running, from] of [
    [false, false, undefined],
    [false, true, 'running'],
    [true, false, 'disks'],
    [true, true, 'running'],
  ] as const) {
    await writeLab(state, { ...lab, complete })
    runs(running)
    expect(findCluster(state)?.from).toBe(from)
  }
})

test('two commands do not work on one cluster', async () => {
  const state = folder('locked')
  await withStateLock(state, async () => {
    await expect(withStateLock(state, async () => undefined)).rejects.toMatchObject({ code: 'STATE_LOCKED' })
  })
  expect(await withStateLock(state, async () => 'free again')).toBe('free again')
})

test('the lock of a process that died is none', async () => {
  const state = folder('left')
  const dead = { ...identifyProcess(process.pid)!, startTicks: 1 }
  writeFileSync(join(state.root, 'lock'), JSON.stringify(dead))
  expect(await withStateLock(state, async () => 'taken over')).toBe('taken over')
})

test('of many that find a dead lock one works at a time', async () => {
  const state = folder('raced')
  const dead = { ...identifyProcess(process.pid)!, startTicks: 1 }
  writeFileSync(join(state.root, 'lock'), JSON.stringify(dead))
  let working = 0
  const work = async (): Promise<string> => {
    expect(++working).toBe(1)
    await new Promise((resolve) => setTimeout(resolve, 20))
    working--
    return 'worked'
  }
  const outcomes = await Promise.allSettled([1, 2, 3, 4].map(() => withStateLock(state, work)))
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  expect(readdirSync(state.root).filter((name) => name.startsWith('lock'))).toEqual([])
})

test('an empty name of a state folder is refused', () => {
  expect(() => stateFolder('', {})).toThrow(/--state/)
})

test('a state folder that cannot be made is a fault', () => {
  writeFileSync(join(base, 'file'), '')
  expect(() => createStateFolder(stateFolder(join(base, 'file/below'), {}))).toThrow(
    expect.objectContaining({ code: 'STATE_FOLDER' }),
  )
})

test('a cluster is not resumed with another number of machines or another size', async () => {
  const state = folder('shape')
  refuseOtherShape(state.root, {}, { nodes: 9 })
  await writeLab(state, { ...lab, complete: false })
  refuseOtherShape(state.root, {}, { nodes: 9 })
  await writeLab(state, lab)
  refuseOtherShape(state.root, {}, {})
  refuseOtherShape(state.root, {}, { nodes: 1, memoryMiB: 1024 })
  expect(() => refuseOtherShape(state.root, {}, { nodes: 2, memoryMiB: 2048 })).toThrow(
    'has 1 machines and 1024 MiB of memory for each',
  )
})
