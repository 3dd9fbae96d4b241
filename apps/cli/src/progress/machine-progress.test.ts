import type { MachineRecord } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { describeProgress, newProgress, onConsoleLine, onRecord, placeOf } from './machine-progress.ts'

const record = (fields: Partial<MachineRecord>): MachineRecord => ({
  id: 'node1',
  mac: '52:54:00:4b:00:01',
  uuid: '',
  state: 'installing',
  firstSeenAt: '2026-01-01T00:00:00.000Z',
  lastSeenAt: '2026-01-01T00:00:00.000Z',
  ...fields,
})

const read = (lines: string[]) =>
  lines.reduce((progress, line, second) => onConsoleLine(progress, line, second), newProgress('node1', 0))

test('stages come from firmware, kernel and our own marks, and ready ends it', () => {
  const progress = read([
    'BdsDxe: loading Boot0002 "UEFI PXEv4"',
    'iPXE initialising devices...ok',
    'EFI stub: Loaded initrd',
    'MARK:fetch uptime=3.00 status=running',
    'MARK:fetch uptime=9.00 status=done',
    'MARK:disks uptime=9.10 status=running',
    'MARK:ready uptime=60.10 version=0.1.0 slot=a generation=1',
  ])
  expect(progress).toMatchObject({ stage: 'ready', state: 'ready' })
  expect(describeProgress(progress, 6)).toBe(
    'node1       6 s  firmware 1  ipxe 1  kernel 1  fetch 2  disks 1  ready',
  )
})

test('a report that comes late does not take a machine back', () => {
  const progress = onRecord(read(['MARK:files uptime=1 status=running']), record({ stage: 'disks' }), 1)
  expect(progress.stage).toBe('files')
})

test('the reason of a failure is the line after it', () => {
  const progress = read([
    'MARK:fetch uptime=3.00 status=failed',
    'kiln: fetch failed: no memory for the image; rebooting in 30 s',
  ])
  expect(progress).toMatchObject({ state: 'failed', stage: 'fetch', failure: 'no memory for the image' })
})

test('what the machine reported itself wins over its console', () => {
  const console = read(['MARK:fetch uptime=3.00 status=failed'])
  const reported = onRecord(
    console,
    record({
      stage: 'fetch',
      stageStatus: 'failed',
      message: 'bad',
      path: 'storage.files[0]',
      line: 3,
      column: 7,
    }),
    1,
  )
  expect(reported).toMatchObject({ failure: 'bad', place: 'storage.files[0], line 3, column 7' })
  expect(onConsoleLine(reported, 'kiln-ignition: fetch failed: other', 2).failure).toBe('bad')
  expect(placeOf({})).toBeUndefined()
})

test('a kernel panic is a failure', () => {
  expect(read(['[ 1.0] Kernel panic - not syncing: x']).state).toBe('failed')
})
