import { appendFileSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { findBadness } from './console-badness.ts'
import { impliedStage, parseMark, plainLine } from './console-markers.ts'
import { SerialLog } from './serial-log.ts'

test('a mark gives stage, uptime and its other fields', () => {
  expect(parseMark('[   12.3] MARK:disks uptime=12.34 status=done message="two words"')).toEqual({
    stage: 'disks',
    uptimeSeconds: 12.34,
    fields: { uptime: '12.34', status: 'done', message: 'two words' },
  })
  expect(parseMark('Linux version 6.1')).toBeUndefined()
})

test('stages before our programs are read from what firmware and kernel say', () => {
  expect(impliedStage('BdsDxe: loading Boot0002')).toBe('firmware')
  expect(impliedStage('iPXE 1.0.0+git -- Open Source Network Boot Firmware')).toBe('ipxe')
  expect(impliedStage('[    1.0] systemd[1]: hello')).toBeUndefined()
  expect(impliedStage('iPXE initialising devices...ok')).toBe('ipxe')
  expect(impliedStage('EFI stub: Loaded initrd from command line option')).toBe('kernel')
})

test('terminal control is taken out of a line', () => {
  expect(plainLine('\u001b[2J\u001b[01;01H\u001b[=3hBdsDxe: loading\r')).toBe('BdsDxe: loading')
})

test('bad lines are found, and kinds that a story provokes are allowed', () => {
  const lines = ['all well', '[ 1.0] Kernel panic - not syncing: dm-verity device corrupted']
  expect(findBadness(lines).map(({ kind }) => kind)).toEqual(['kernel panic'])
  expect(findBadness(lines, ['kernel panic'])).toEqual([])
})

test('a waiting reader gets lines that come later, in one or in pieces', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'kiln-serial-')), 'serial.log')
  writeFileSync(path, 'first\r\nMARK:ker')
  const log = new SerialLog(path)
  const waiting = log.waitFor(/MARK:kernel/, { timeoutMs: 10_000 })
  appendFileSync(path, 'nel uptime=1\r\n')
  expect(await waiting).toBe('MARK:kernel uptime=1')
  expect(log.lines).toEqual(['first', 'MARK:kernel uptime=1'])
  log.close()
})

test('a bad line ends the wait', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'kiln-serial-')), 'serial.log')
  writeFileSync(path, 'Kernel panic\n')
  const log = new SerialLog(path)
  await expect(log.waitFor(/ready/, { timeoutMs: 10_000, failOn: /panic/ })).rejects.toThrow(/Kernel panic/)
  log.close()
})
