import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseTable, planPartitions, sfdiskScript } from '@kiln/gpt'
import { expect, test } from 'vitest'
import { readerOf } from './file-disk.ts'
import { installLayout } from './install-layout.ts'

const there = spawnSync('sfdisk', ['--version']).status === 0
if (!there) console.log('skipped: sfdisk is not installed (package fdisk)')

test.skipIf(!there)('sfdisk writes exactly the table that was planned', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'kiln-sfdisk-')), 'disk.img')
  const disk = { sectorBytes: 512, sectors: (2 * 1024 ** 3) / 512 }
  writeFileSync(path, '')
  truncateSync(path, disk.sectors * disk.sectorBytes)
  const spec = { partitions: installLayout(path).partitions ?? [] }
  let next = 0
  const newGuid = (): string => `00000000-0000-4000-8000-${String(++next).padStart(12, '0')}`
  const plan = planPartitions(spec, { ...disk, reading: { kind: 'none' }, busy: [] }, newGuid)
  if (!plan.ok) throw new Error(plan.refusals.join())
  const { status, stderr } = spawnSync('sfdisk', ['--quiet', path], {
    input: sfdiskScript(plan.table),
    encoding: 'utf8',
  })
  expect(`${status} ${stderr}`).toBe('0 ')
  const descriptor = openSync(path, 'r')
  expect(parseTable(disk, readerOf(descriptor))).toEqual({ kind: 'table', table: plan.table, problems: [] })
  closeSync(descriptor)
})
