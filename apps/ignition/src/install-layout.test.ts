import { emptyTable, type GptReading, planPartitions } from '@kiln/gpt'
import { expect, test } from 'vitest'
import {
  chooseDisk,
  definesInstallLayout,
  hasInstallLayout,
  installLayout,
  mayInstall,
} from './install-layout.ts'

const gib = 1024 ** 3
const disk = { sectorBytes: 512, sectors: (6 * gib) / 512 }
const empty: GptReading = { kind: 'none' }

function tableOf(partitions: object[]): GptReading {
  const found = { ...disk, reading: empty, busy: [] }
  const plan = planPartitions({ partitions }, found, () => '00000000-0000-4000-8000-000000000000')
  if (!plan.ok) throw new Error(plan.refusals.join())
  return { kind: 'table', table: plan.table, problems: [] }
}

const ours = tableOf(installLayout('/dev/vda').partitions ?? [])
const foreign = tableOf([{ number: 1, label: 'windows', sizeMiB: 0 }])
const candidate = (device: string, reading: GptReading = empty, removable = false) => ({
  device,
  sizeBytes: 6 * gib,
  removable,
  reading,
})

test('the only fixed disk is taken', () => {
  const stick = candidate('/dev/sdb', empty, true)
  const small = { ...candidate('/dev/vdb'), sizeBytes: gib }
  expect(chooseDisk([stick, small, candidate('/dev/vda')], undefined)).toEqual({
    ok: true,
    device: '/dev/vda',
  })
})

test('among several, one that is ours is taken, otherwise nothing is guessed', () => {
  const two = [candidate('/dev/vda'), candidate('/dev/vdb')]
  expect(chooseDisk(two, undefined)).toMatchObject({ ok: false, reason: expect.stringContaining('2 disks') })
  expect(chooseDisk([two[0]!, candidate('/dev/vdb', ours)], undefined)).toMatchObject({ device: '/dev/vdb' })
  expect(chooseDisk(two, '/dev/vdb')).toEqual({ ok: true, device: '/dev/vdb' })
  expect(chooseDisk([], undefined).ok).toBe(false)
})

test('only an empty disk or one of ours is laid out by itself', () => {
  expect(hasInstallLayout(ours)).toBe(true)
  expect(mayInstall(empty, false)).toBe(true)
  expect(
    mayInstall({ kind: 'table', table: emptyTable({ ...disk, diskGuid: '' }), problems: [] }, false),
  ).toBe(true)
  expect(mayInstall(ours, false)).toBe(true)
  for (const reading of [foreign, { kind: 'dos' }, { kind: 'broken', problems: [] }] as GptReading[]) {
    expect(mayInstall(reading, false)).toBe(false)
    expect(mayInstall(reading, true)).toBe(true)
  }
})

test('a config that names a system partition lays the disk out itself', () => {
  const config = (label: string) => ({
    ignition: { version: '3.4.0' },
    storage: { disks: [{ device: '/dev/vdb', partitions: [{ number: 1, label }] }] },
  })
  expect(definesInstallLayout(config('data'))).toBe(false)
  expect(definesInstallLayout(config('ROOT'))).toBe(true)
})
