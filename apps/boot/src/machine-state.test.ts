import type { MachineRecord, MachineStage, StageStatus } from '@kiln/schemas'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { attemptsMax, decideBoot, discovered, type MachineEvent, stepMachine } from './machine-state.ts'

const at = '2026-06-01T00:00:00.000Z'
const fresh = discovered({ id: '52-54-00-00-00-01', mac: '52:54:00:00:00:01', uuid: '', now: at })
const assigned: MachineEvent = {
  kind: 'assigned',
  assignment: { group: 'default', name: 'node1', address: '10.77.0.11', role: 'store' },
}
const begun: MachineEvent = { kind: 'install-begun' }
const served: MachineEvent = { kind: 'config-served' }
const allowed: MachineEvent = { kind: 'reinstall-allowed' }
const enrolled: MachineEvent = { kind: 'enrolled', at }
const report = (stage: MachineStage, status: StageStatus, bootId = 'b1', message?: string): MachineEvent => ({
  kind: 'reported',
  at,
  report: { stage, status, uptimeSeconds: 1, bootId, message },
})
const after = (from: MachineRecord, ...events: MachineEvent[]): MachineRecord =>
  events.reduce(stepMachine, from)

const installing = after(fresh, assigned, begun, served, report('fetch', 'running'))
const installed = after(installing, report('files', 'done'))

test('a machine goes from discovered to installed', () => {
  expect(fresh.state).toBe('discovered')
  expect(after(fresh, assigned)).toMatchObject({ id: 'node1', state: 'assigned', attempts: 0 })
  expect(installing).toMatchObject({ state: 'installing', attempts: 1, installs: 1 })
  expect(installed).toMatchObject({ state: 'installed', attempts: 0, installedAt: at })
  expect(after(installed, report('ready', 'done'))).toMatchObject({ state: 'installed', stage: 'ready' })
})

test('an unassigned machine waits, whatever it reports', () => {
  expect(decideBoot(after(fresh, begun, report('files', 'done')))).toMatchObject({ kind: 'wait' })
})

test('an installed machine starts from its disk, and a second install cannot begin', () => {
  expect(decideBoot(installed)).toEqual({ kind: 'disk' })
  expect(after(installed, begun)).toEqual(installed)
})

test('a reinstall is withdrawn with what it keeps, until the machine is told to install', () => {
  const withdrawn: MachineEvent = { kind: 'reinstall-withdrawn' }
  const keeping = after(installed, { kind: 'reinstall-allowed', keep: ['DATA'] })
  expect(decideBoot(after(keeping, withdrawn))).toEqual({ kind: 'disk' })
  expect(after(keeping, withdrawn).keep).toBeUndefined()
  const told = after(keeping, begun)
  expect(after(told, withdrawn)).toEqual(told)
})

test('what a reinstall keeps stays known until it is complete, also when the machine has enrolled', () => {
  const keeping = after(installed, { kind: 'reinstall-allowed', keep: ['DATA'] })
  expect(keeping).toMatchObject({ reinstall: true, keep: ['DATA'] })
  const midway = after(keeping, begun, served, report('fetch', 'running', 'b2'), enrolled)
  expect(midway.reinstall).toBeUndefined()
  expect(midway.keep).toEqual(['DATA'])
  expect(after(midway, report('files', 'done', 'b2')).keep).toBeUndefined()
  expect(after(keeping, allowed).keep).toBeUndefined()
})

test('a failure is kept with its place and the next boot installs again', () => {
  const failed = stepMachine(installing, {
    kind: 'reported',
    at,
    report: {
      stage: 'files',
      status: 'failed',
      uptimeSeconds: 2,
      bootId: 'b1',
      message: 'bad mode',
      path: 'storage.files.0.mode',
      line: 3,
      column: 9,
    },
  })
  expect(failed).toMatchObject({ state: 'failed', message: 'bad mode', line: 3, column: 9 })
  expect(decideBoot(failed)).toEqual({ kind: 'install', reinstall: false })
  expect(after(failed, begun)).toMatchObject({ state: 'installing', message: undefined, line: undefined })
})

test('a unit that fails after the install leaves the machine installed', () => {
  const degraded = after(installed, report('units', 'failed', 'b1', 'kiln-kv.service failed'))
  expect(degraded).toMatchObject({ state: 'installed', stageStatus: 'failed' })
  expect(decideBoot(degraded)).toEqual({ kind: 'disk' })
})

test('a reinstall happens once: it is used up when the new files are written', () => {
  const ready = after(installed, allowed)
  expect(decideBoot(ready)).toEqual({ kind: 'install', reinstall: true })
  const again = after(ready, begun, report('disks', 'running', 'b2'), report('files', 'done', 'b2'))
  expect(again).toMatchObject({ state: 'installed', reinstall: undefined, installs: 2 })
  expect(decideBoot(again)).toEqual({ kind: 'disk' })
})

test('a reinstall whose last reports were lost is used up by enrolling', () => {
  const again = after(installed, allowed, begun, enrolled, report('ready', 'done', 'b2'))
  expect(decideBoot(again)).toEqual({ kind: 'disk' })
})

test('a reinstall whose files report was lost is used up by a later stage of the same boot', () => {
  const again = after(
    installed,
    allowed,
    begun,
    report('disks', 'running', 'b2'),
    report('units', 'running', 'b2'),
  )
  expect(decideBoot(again)).toEqual({ kind: 'disk' })
})

test('a machine set to reinstall that started from its old disk may still be reinstalled', () => {
  const old = after(installed, allowed, begun, report('ready', 'done', 'b9'))
  expect(old).toMatchObject({ state: 'installed', reinstall: true })
})

test('iPXE starting over is the same install, a boot after a report is the next', () => {
  const first = after(fresh, assigned, begun)
  expect(after(first, begun, begun)).toEqual(first)
  expect(after(first, report('fetch', 'running'), begun)).toMatchObject({ installs: 2 })
})

test('a machine that never gets through is held until an operator allows a reinstall', () => {
  let record = after(fresh, assigned)
  for (let i = 0; i < attemptsMax; i++)
    record = after(record, begun, served, report('disks', 'failed', `b${i}`, 'no disk'))
  expect(decideBoot(record)).toMatchObject({ kind: 'wait' })
  expect(decideBoot(after(record, allowed)).kind).toBe('install')
})

test('a machine that only waits for its config is never held', () => {
  let record = after(fresh, assigned)
  for (let i = 0; i < 3 * attemptsMax; i++) record = after(record, begun, report('fetch', 'running', `b${i}`))
  expect(decideBoot(record).kind).toBe('install')
})

test('no sequence without an operator makes an installed machine install again', () => {
  const stage = fc.constantFrom<MachineStage>(
    'ipxe',
    'kernel',
    'fetch',
    'disks',
    'image',
    'files',
    'units',
    'ready',
  )
  const status = fc.constantFrom<StageStatus>('running', 'done', 'failed')
  const event = fc.oneof(
    fc.constantFrom(begun, served, enrolled, assigned, { kind: 'held', message: 'x' } as const),
    fc.tuple(stage, status, fc.constantFrom('b1', 'b2')).map(([s, t, b]) => report(s, t, b)),
  )
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40 }), (events) => {
      expect(decideBoot(after(installed, ...events))).toEqual({ kind: 'disk' })
    }),
  )
})
