import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { labelsOf } from './labels.ts'
import { MachineRegistry } from './machine-registry.ts'

const log = createLog('test', 'silent')
const labels = (query: string) => labelsOf(new URLSearchParams(query))
const newFolder = (): string => join(mkdtempSync(join(tmpdir(), 'kiln-machines-')), 'machines')
const assignment = { group: 'g', name: 'node1', address: '10.77.0.11', role: 'store' } as const

async function open(folder: string): Promise<MachineRegistry> {
  const registry = new MachineRegistry(folder, log)
  await registry.load()
  return registry
}

test('a machine keeps its record and its file under the name it is given', async () => {
  const folder = newFolder()
  const registry = await open(folder)
  const seen = await registry.see(labels('mac=52:54:00:00:00:01&uuid=AB'))
  expect(readdirSync(folder)).toEqual(['52-54-00-00-00-01.json'])
  await registry.apply(seen?.id ?? '', { kind: 'assigned', assignment })
  expect(readdirSync(folder)).toEqual(['node1.json'])
  expect(registry.get('52-54-00-00-00-01')?.id).toBe('node1')
  expect((await open(folder)).get('node1')).toEqual(registry.get('node1'))
})

test('a crash while a machine got its name is cleaned up at the next start', async () => {
  const folder = newFolder()
  const registry = await open(folder)
  await registry.see(labels('mac=52:54:00:00:00:01'))
  const before = readFileSync(join(folder, '52-54-00-00-00-01.json'))
  await registry.apply('52-54-00-00-00-01', { kind: 'assigned', assignment })
  writeFileSync(join(folder, '52-54-00-00-00-01.json'), before)
  const next = await open(folder)
  expect(next.list().map((record) => record.id)).toEqual(['node1'])
  expect(readdirSync(folder)).toEqual(['node1.json'])
  expect(next.problems).toEqual([])
})

test('a damaged record is left out and named, the others load', async () => {
  const folder = newFolder()
  await (await open(folder)).see(labels('mac=52:54:00:00:00:01'))
  writeFileSync(join(folder, 'node9.json'), '{"id":')
  const registry = await open(folder)
  expect(registry.list()).toHaveLength(1)
  expect(registry.problems.map((problem) => problem.file)).toEqual(['machines/node9.json'])
})

test('concurrent events of one machine all count and the last state is on disk', async () => {
  const folder = newFolder()
  const registry = await open(folder)
  await Promise.all(Array.from({ length: 8 }, () => registry.see(labels('mac=52:54:00:00:00:01'))))
  expect(registry.list()).toHaveLength(1)
  await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      registry.apply('52-54-00-00-00-01', { kind: 'held', message: `reason ${i}` }),
    ),
  )
  expect((await open(folder)).get('52-54-00-00-00-01')?.message).toBe('reason 19')
})

test('strangers are written down only so many a second', async () => {
  const registry = await open(newFolder())
  const seen = await Promise.all(
    Array.from({ length: 200 }, (_, i) =>
      registry.see(labels(`mac=525400${i.toString(16).padStart(6, '0')}`)),
    ),
  )
  const kept = seen.filter((record) => record !== undefined).length
  expect(kept).toBeGreaterThanOrEqual(50)
  expect(kept).toBeLessThan(200)
})

test('a machine without a MAC is found by its UUID, but not by one of zeros', async () => {
  const registry = await open(newFolder())
  await registry.see(labels('mac=52:54:00:00:00:01&uuid=4B49'))
  await registry.see(labels('mac=52:54:00:00:00:02&uuid=0000'))
  expect(registry.find(labels('uuid=4b49'))?.mac).toBe('52:54:00:00:00:01')
  expect(registry.find(labels('uuid=0000'))).toBeUndefined()
  expect(registry.find(labels('mac=52:54:00:00:00:03&uuid=4b49'))).toBeUndefined()
})
