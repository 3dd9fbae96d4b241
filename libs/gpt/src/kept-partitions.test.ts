import { expect, test } from 'vitest'
import { lostPartitions, planAround } from './kept-partitions.ts'
import { describePartitionAction, type FoundDisk, planPartitions } from './partition-plan.ts'
import type { GptPartition, GptTable } from './table.ts'

const disk = { sectorBytes: 512, sectors: (2 * 1024 ** 3) / 512, busy: [] as number[] }
let guids = 0
const newGuid = (): string => `${String(++guids).padStart(8, '0')}-0000-4000-8000-000000000000`

function tableOf(partitions: object[]): GptTable {
  const plan = planPartitions({ partitions }, { ...disk, reading: { kind: 'none' } }, newGuid)
  if (!plan.ok) throw new Error(plan.refusals.join())
  return plan.table
}

const foundOf = (table: GptTable, busy: number[] = []): FoundDisk => ({
  ...{ ...disk, busy },
  reading: { kind: 'table', table, problems: [] },
})
const labelled = (table: GptTable, label: string): GptPartition =>
  table.partitions.find((each) => each.label === label)!

const before = tableOf([
  { label: 'EFI', sizeMiB: 100 },
  { label: 'DATA', sizeMiB: 300 },
  { label: 'OLD', sizeMiB: 0 },
])
const wanted = [
  { label: 'EFI', sizeMiB: 64 },
  { label: 'ROOT', sizeMiB: 0 },
]

test('what is kept stays where it is, the rest goes, and the new ones get the free numbers and the free space', () => {
  const kept = labelled(before, 'DATA')
  const plan = planAround(wanted, [kept], foundOf(before), newGuid)
  if (!plan.ok) throw new Error(plan.refusals.join())
  expect(plan.actions.map((action) => describePartitionAction(action, 512))).toEqual([
    'keep partition 2 "DATA" at 101 MiB, 300 MiB',
    'delete partition 1 "EFI" at 1 MiB, 100 MiB',
    'delete partition 3 "OLD" at 401 MiB, 1646 MiB',
    'create partition 1 "EFI" at 401 MiB, 64 MiB',
    'create partition 3 "ROOT" at 465 MiB, 1582 MiB',
  ])
  expect(labelled(plan.table, 'DATA')).toEqual(kept)
  expect(lostPartitions([kept], plan.table)).toEqual([])
  const again = planAround(wanted, [kept], foundOf(plan.table), newGuid)
  expect(again).toMatchObject({ ok: true, changes: false, table: plan.table })
})

test('what is in use is not removed, and what does not fit around is refused', () => {
  const kept = labelled(before, 'DATA')
  expect(planAround(wanted, [kept], foundOf(before, [3]), newGuid)).toEqual({
    ok: false,
    refusals: ['partition 3 is in use and cannot be removed'],
  })
  const large = [{ label: 'ROOT', sizeMiB: 1800 }]
  expect(planAround(large, [kept], foundOf(before), newGuid)).toMatchObject({ ok: false })
  expect(planAround(wanted, [kept], { ...disk, reading: { kind: 'none' } }, newGuid)).toMatchObject({
    ok: false,
  })
})

test('a kept partition may grow, and nothing else', () => {
  const kept = labelled(before, 'DATA')
  const changed = (change: Partial<GptPartition>): string[] =>
    lostPartitions([kept], { ...before, partitions: [{ ...kept, ...change }] })
  expect(changed({ endLba: kept.endLba + 2048 })).toEqual([])
  expect(changed({ endLba: kept.endLba - 1 })).toEqual(['partition 2 "DATA" would become smaller'])
  expect(changed({ guid: newGuid() })).toEqual(['partition 2 "DATA" would be replaced'])
  expect(changed({ startLba: kept.startLba + 1 })).toEqual(['partition 2 "DATA" would be replaced'])
  expect(changed({ label: 'other' })).toEqual(['partition 2 "DATA" would change its type or label'])
  expect(lostPartitions([kept], { ...before, partitions: [] })).toHaveLength(1)
})
