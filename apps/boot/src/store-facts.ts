import { clientUrl, kvEnvironment, type MachineRecord } from '@kiln/schemas'
import type { BootContext } from './boot-context.ts'

export type StoreFacts = { endpoints: string[]; kvEnvironment: string | undefined }

/**
 * Where a machine finds the store and, for a member, how its kiln-kv starts: `new` for the initial cluster, `existing`
 * for one that was added to it, or that comes back with an empty disk. Throws `CLUSTER_WAITING` until it is known.
 */
export async function storeFacts(
  context: BootContext,
  record: MachineRecord,
  installs: boolean,
): Promise<StoreFacts> {
  const cluster = await context.cluster.settle(context.data.catalog.groups, context.machines.values())
  if (!cluster) return { endpoints: context.settings.machineStoreEndpoints, kvEnvironment: undefined }
  const place = await context.membership.place(record, cluster, installs)
  const endpoints = place.members.map((member) => clientUrl(member.address))
  if (record.role !== 'store') return { endpoints, kvEnvironment: undefined }
  return {
    endpoints,
    kvEnvironment: kvEnvironment({
      name: record.name ?? record.id,
      address: record.address ?? '',
      members: place.members,
      state: place.state,
      token: cluster.token,
    }),
  }
}
