import { clientUrl, kvEnvironment, type MachineRecord } from '@kiln/schemas'
import type { BootContext } from './boot-context.ts'
import { clusterWaiting, initialCluster } from './cluster-file.ts'
import { type ClusterRecord, planCluster } from './initial-cluster.ts'
import { knownPlace, type MemberPlace } from './store-membership.ts'

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
  if (!cluster) return withoutStore(context)
  const place = await context.membership.place(record, cluster, installs)
  // It may be another one since.
  return factsAt(place, context.cluster.record ?? cluster, record)
}

/** Stands in a plan for the token that the cluster gets when the first of its machines is installed. */
const tokenToCome = 'made-when-the-first-machine-installs'

/** The same for a plan: what an install would get, as far as it is known without asking or changing anything. */
export function expectedStoreFacts(context: BootContext, record: MachineRecord): StoreFacts {
  const plan = planCluster(context.data.catalog.groups, context.machines.values())
  let cluster = context.cluster.record
  if (!cluster && plan.kind === 'waiting') throw clusterWaiting(plan)
  if (!cluster && plan.kind === 'ready') cluster = initialCluster(plan.members, tokenToCome)
  return cluster ? factsAt(knownPlace(record, cluster, true), cluster, record) : withoutStore(context)
}

const withoutStore = (context: BootContext): StoreFacts => ({
  endpoints: context.settings.machineStoreEndpoints,
  kvEnvironment: undefined,
})

function factsAt(place: MemberPlace, cluster: ClusterRecord, record: MachineRecord): StoreFacts {
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
