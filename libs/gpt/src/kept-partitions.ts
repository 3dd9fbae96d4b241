import {
  type FoundDisk,
  type PartitionAction,
  type PartitionPlan,
  type PartitionSpec,
  planPartitions,
} from './partition-plan.ts'
import type { GptPartition, GptTable } from './table.ts'

/**
 * Plans a disk of which only some partitions stay: `kept` as they are, and the new ones in the space around them with
 * the lowest numbers that are free. A disk that is so already is left alone, so that a second run changes nothing.
 */
export function planAround(
  specs: PartitionSpec[],
  kept: GptPartition[],
  found: FoundDisk,
  newGuid: () => string,
): PartitionPlan {
  if (found.reading.kind !== 'table') {
    return { ok: false, refusals: ['the disk has no partition table that could hold what is to be kept'] }
  }
  const { table } = found.reading
  const isKept = ({ number }: GptPartition): boolean => kept.some((each) => each.number === number)
  const others = table.partitions.filter((partition) => !isKept(partition))
  const busy = others.filter(({ number }) => found.busy.includes(number))
  if (busy.length > 0) {
    return {
      ok: false,
      refusals: busy.map(({ number }) => `partition ${number} is in use and cannot be removed`),
    }
  }
  const taken = new Set(kept.map(({ number }) => number))
  const numbered = specs.map((spec) => ({ ...spec, number: nextFree(taken) }))
  const onlyKept: FoundDisk = {
    ...found,
    busy: [],
    reading: { kind: 'table', table: { ...table, partitions: kept }, problems: [] },
  }
  const around = planPartitions({ partitions: numbered }, onlyKept, newGuid)
  if (!around.ok) return around
  const keeping = (partitions: GptPartition[]): PartitionAction[] =>
    partitions.map((partition) => ({ kind: 'keep', partition }))
  if (sameLayout(around.table, table)) {
    return { ok: true, actions: keeping(table.partitions), table, changes: false }
  }
  const removing = others.map((partition): PartitionAction => ({ kind: 'delete', partition }))
  return { ...around, actions: [...keeping(kept), ...removing, ...around.actions], changes: true }
}

function nextFree(taken: Set<number>): number {
  let number = 1
  while (taken.has(number)) number++
  taken.add(number)
  return number
}

function sameLayout(a: GptTable, b: GptTable): boolean {
  const layout = ({ partitions }: GptTable): string =>
    partitions
      .map(({ number, label, typeGuid, startLba, endLba }) =>
        [number, label, typeGuid, startLba, endLba].join(),
      )
      .sort()
      .join(';')
  return layout(a) === layout(b)
}

/** Which of the kept partitions a table would not leave as they are, and why. They may only grow. */
export function lostPartitions(kept: GptPartition[], table: GptTable): string[] {
  return kept.flatMap((partition) => {
    const name = `partition ${partition.number} "${partition.label}"`
    const after = table.partitions.find(({ number }) => number === partition.number)
    if (!after || after.guid !== partition.guid || after.startLba !== partition.startLba)
      return [`${name} would be replaced`]
    if (after.endLba < partition.endLba) return [`${name} would become smaller`]
    return after.typeGuid === partition.typeGuid && after.label === partition.label
      ? []
      : [`${name} would change its type or label`]
  })
}
