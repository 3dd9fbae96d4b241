import type { MachinePlan, MachineRecord } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { BootContext } from './boot-context.ts'
import { type Bases, configOf, groupOf, imagesOf, profileOf } from './boot-flow.ts'
import { withMachineArguments } from './boot-images.ts'
import { decideBoot } from './machine-state.ts'
import { expectedStoreFacts } from './store-facts.ts'

/**
 * What an install of a machine would work with: its config and kernel arguments. No ticket is made, no member added and
 * no record changed. An installed machine is shown as if a reinstall were allowed.
 */
export async function machinePlan(
  context: BootContext,
  record: MachineRecord,
  bases: Bases,
): Promise<MachinePlan> {
  if (record.state === 'discovered') {
    throw new Fault(
      'MACHINE_NOT_ASSIGNED',
      `machine ${record.id} is not assigned, there is nothing to install`,
    )
  }
  const images = await imagesOf(context, profileOf(context, groupOf(context, record)), bases.base)
  const reinstall = record.reinstall === true || record.state === 'installed'
  const store = expectedStoreFacts(context, record)
  return {
    machine: record.id,
    next: decideBoot(record),
    config: configOf(context, record, { bases, store, ticket: undefined }) as MachinePlan['config'],
    kernelArguments: withMachineArguments(images, { record, base: bases.base, reinstall }).args.slice(),
  }
}
