import { type ClusterMember, type MachineRecord, peerUrl } from '@kiln/schemas'
import { Fault, type Log } from '@kiln/service'
import type { ClusterFile } from './cluster-file.ts'
import type { ClusterRecord } from './initial-cluster.ts'

/** A member as the running store lists it; the name is empty until it has started. */
export type ListedMember = { id: string; name: string; peerUrls: string[] }

/** The membership calls of a running store. */
export type MemberApi = {
  list(): Promise<ListedMember[]>
  add(peerUrl: string): Promise<void>
  remove(id: string): Promise<void>
  close(): Promise<void>
}

/** How a store member starts: in which cluster, new or already running. */
export type MemberPlace = { members: ClusterMember[]; state: 'new' | 'existing' }

export type StoreMembership = {
  /** `installs`: the machine's disk is about to be empty, so it must be able to start as a member. */
  place(record: MachineRecord, cluster: ClusterRecord, installs: boolean): Promise<MemberPlace>
}

/** Whether the running store must be asked before this machine may start as a member. */
export function needsJoin(record: MachineRecord, cluster: ClusterRecord, installs: boolean): boolean {
  if (record.role !== 'store' || !installs) return false
  const initial = cluster.members.some((member) => member.name === record.name)
  return !initial || record.installedAt !== undefined
}

/**
 * What to change in the list of members, so that a machine with an empty disk may join: its former self goes, and it
 * is added once; asking again changes nothing.
 */
export function planJoin(
  listed: readonly ListedMember[],
  machine: ClusterMember,
): { remove: string[]; add: boolean } {
  const url = peerUrl(machine.address)
  const waiting = listed.find((member) => member.name === '' && member.peerUrls.includes(url))
  const former = listed.filter(
    (member) => member !== waiting && (member.name === machine.name || member.peerUrls.includes(url)),
  )
  return { remove: former.map((member) => member.id), add: waiting === undefined }
}

/** The place of a machine as far as it is known without asking the running store, which may know of other members. */
export function knownPlace(record: MachineRecord, cluster: ClusterRecord, installs: boolean): MemberPlace {
  const known = [...cluster.members, ...cluster.joined]
  if (needsJoin(record, cluster, installs)) {
    const machine = memberOf(record)
    if (isOnly(machine, cluster)) return { members: [machine], state: 'new' }
    return { members: [...known.filter(({ name }) => name !== machine.name), machine], state: 'existing' }
  }
  const initial = cluster.members.some((member) => member.name === record.name)
  return record.role === 'store' && initial
    ? { members: cluster.members, state: 'new' }
    : { members: known, state: 'existing' }
}

/** Whether the store is on this machine alone: then nobody can take it as a member again. */
const isOnly = (machine: ClusterMember, { members, joined }: ClusterRecord): boolean =>
  [...members, ...joined].every(({ name }) => name === machine.name)

const memberOf = (record: MachineRecord): ClusterMember => ({
  name: record.name ?? record.id,
  address: record.address ?? '',
})

/** Members from `cluster.json`, and from the running store where a machine joins it. */
export function storeMembership(at: {
  cluster: ClusterFile
  connect: (endpoints: readonly string[]) => MemberApi
  endpointsOf: (cluster: ClusterRecord, without: string) => string[]
  log: Log
}): StoreMembership {
  return {
    async place(record, cluster, installs) {
      if (!needsJoin(record, cluster, installs)) return knownPlace(record, cluster, installs)
      const machine = memberOf(record)
      if (isOnly(machine, cluster))
        return { members: (await at.cluster.startAnew(machine)).members, state: 'new' }
      const api = at.connect(at.endpointsOf(cluster, machine.address))
      try {
        const listed = await join(api, machine, at.log)
        await at.cluster.addJoined(machine)
        return { members: listed, state: 'existing' }
      } catch (cause) {
        throw joinFault(machine.name, cause)
      } finally {
        await api.close()
      }
    },
  }
}

async function join(api: MemberApi, machine: ClusterMember, log: Log): Promise<ClusterMember[]> {
  const plan = planJoin(await api.list(), machine)
  for (const id of plan.remove) {
    await api.remove(id)
    log.info({ member: id, machine: machine.name }, 'former member removed from the store')
  }
  if (plan.add) {
    await api.add(peerUrl(machine.address))
    log.info({ machine: machine.name, address: machine.address }, 'member added to the store')
  }
  return (await api.list()).flatMap((member) => {
    const url = member.peerUrls[0]
    if (!url) return []
    const address = new URL(url).hostname
    return [{ name: address === machine.address ? machine.name : member.name, address }]
  })
}

/** What passes by itself is asked again; a refusal needs an operator. */
function joinFault(name: string, cause: unknown): Fault {
  const passing = ['UNREACHABLE', 'TIMEOUT', 'NO_LEADER', 'UNKNOWN_OUTCOME', 'UNHEALTHY', 'BUSY', 'FAILED']
  if (!(cause instanceof Fault) || passing.includes(cause.code.replace('STORE_', ''))) {
    return new Fault(
      'STORE_UNREACHABLE',
      `the running store must take ${name} as a member and cannot be asked`,
      { cause },
    )
  }
  return new Fault('JOIN_REFUSED', `the running store does not take ${name} as a member: ${cause.message}`, {
    cause,
    remedy: 'add it by hand (etcdctl member add), or make the machine a worker',
  })
}
