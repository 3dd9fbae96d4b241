import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parsePod } from '@kiln/schemas'
import { assert, createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { newRecord, openRecords, type PodRecord } from './pod-record.ts'

const log = createLog('test', 'silent')

function recordOf(name: string, bootId = 'boot1'): PodRecord {
  const { pod } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { containers: [{ name: 'web', image: 'oci:/x', resources: { limits: { memory: '32Mi' } } }] },
  })
  assert(pod, 'a pod')
  return newRecord(pod, 'file', bootId)
}

test('a record reads back as written, and one that cannot be read is left alone', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-records-'))
  const records = openRecords(folder, log)
  const record = recordOf('one')
  await records.save(record)
  expect(readdirSync(join(folder, 'life/embryo'))).toEqual([])
  mkdirSync(join(folder, 'life/run/torn'))
  writeFileSync(join(folder, 'life/run/torn/pod.json'), '{"formatVersion":1,')
  expect(await records.load()).toEqual([record])
  await records.remove(record)
  expect(await records.load()).toEqual([])
  expect(readdirSync(join(folder, 'life/run'))).toEqual(['torn'])
  expect(readdirSync(join(folder, 'life/garbage'))).toEqual([])
})

test('a pod of an older program, whose manifests had fewer fields, is still the same pod', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-records-'))
  const record = recordOf('one')
  const { initContainers: _new, ...spec } = record.manifest.spec
  const older = { ...record, manifest: { ...record.manifest, spec }, hash: 'of fewer fields' }
  mkdirSync(join(folder, 'pods/one'), { recursive: true })
  writeFileSync(join(folder, 'pods/one/pod.json'), JSON.stringify(older))
  expect(await openRecords(folder, log).load()).toEqual([{ ...record, byName: true }])
})

test('exits are kept for the attempts of this boot that nobody has accounted for', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-records-'))
  const records = openRecords(folder, log)
  const running = (attempt: number) => ({
    web: { state: { kind: 'running' as const, startedAtMs: 0, attempt, failures: 0, restarts: 0 } },
  })
  mkdirSync(join(folder, 'exits'))
  for (const name of ['one.web.1', 'one.web.2', 'two.web.1', 'gone.web.1'])
    writeFileSync(join(folder, `exits/${name}.json`), '{}')
  await records.removeStaleExits(
    [
      { ...recordOf('one'), containers: running(2) },
      { ...recordOf('two', 'boot0'), containers: running(1) },
    ],
    'boot1',
  )
  expect(readdirSync(join(folder, 'exits'))).toEqual(['one.web.2.json'])
})
