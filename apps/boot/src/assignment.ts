import { type Group, HostName, type MachineAssignment, type MachineRecord } from '@kiln/schemas'
import type { ClusterRecord } from './initial-cluster.ts'

/** Names that mean something else in certificates. */
const reservedNames = new Set(['admin', 'boot', 'localhost'])

export type Proposal =
  | { kind: 'not-kiln' }
  | { kind: 'hold'; message: string }
  | { kind: 'assign'; assignment: MachineAssignment }

/** What a group's `metadata.kiln` makes of a machine that was matched by it. */
export function proposeAssignment(group: Group, mac: string): Proposal {
  const kiln = group.metadata?.kiln
  if (!kiln) return { kind: 'not-kiln' }
  const address = kiln.addresses[mac]
  if (!address) return { kind: 'hold', message: `group ${group.id} has no address for this machine` }
  const name = HostName.parse(kiln.names[mac] ?? mac.replaceAll(':', '-'))
  return { kind: 'assign', assignment: { group: group.id, name, address, role: kiln.role } }
}

export type AssignmentConflict = { code: string; message: string }

/** Why a machine cannot be assigned so; undefined when it can. An installed machine keeps what it was given. */
export function assignmentConflict(
  record: MachineRecord,
  wanted: MachineAssignment,
  others: Iterable<MachineRecord>,
  cluster: ClusterRecord | undefined,
): AssignmentConflict | undefined {
  if (sameAssignment(record, wanted)) return undefined
  if (reservedNames.has(wanted.name)) {
    return { code: 'NAME_RESERVED', message: `a machine cannot be named ${wanted.name}` }
  }
  if (record.state === 'installing' || record.state === 'installed') {
    return {
      code: 'MACHINE_INSTALLED',
      message: `machine ${record.id} is ${record.state} as ${record.name}; what it is cannot be changed any more`,
    }
  }
  const members = [...(cluster?.members ?? []), ...(cluster?.joined ?? [])]
  const member = members.find((at) => at.name === record.name)
  if (
    member &&
    (member.name !== wanted.name || member.address !== wanted.address || wanted.role !== 'store')
  ) {
    return {
      code: 'CLUSTER_FIXED',
      message: `machine ${record.id} is a member of the store's cluster already`,
    }
  }
  for (const other of others) {
    if (other.mac === record.mac) continue
    if (other.id === wanted.name) {
      return { code: 'NAME_TAKEN', message: `machine ${wanted.name} exists already, with MAC ${other.mac}` }
    }
    if (other.address === wanted.address) {
      return {
        code: 'ADDRESS_TAKEN',
        message: `machine ${other.id} has the address ${wanted.address} already`,
      }
    }
  }
  return undefined
}

/** Whether the record already says what is wanted. */
export function sameAssignment(record: MachineRecord, wanted: MachineAssignment): boolean {
  return (
    record.state !== 'discovered' &&
    record.name === wanted.name &&
    record.group === wanted.group &&
    record.address === wanted.address &&
    record.role === wanted.role
  )
}
