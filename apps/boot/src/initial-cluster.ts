import type { ClusterMember, Group, MachineRecord } from '@kiln/schemas'
import * as z from 'zod'

/** `cluster.json`: written once, when the expected store members are assigned. */
export const ClusterRecord = z.looseObject({
  formatVersion: z.literal(1),
  /** Random; keeps members of different clusters apart. Not a secret. */
  token: z.string(),
  createdAt: z.string(),
  members: z.array(z.looseObject({ name: z.string(), address: z.string() })),
  /** Members added later through the store's API: they start with state `existing`. */
  joined: z.array(z.looseObject({ name: z.string(), address: z.string() })).default([]),
})
export type ClusterRecord = z.output<typeof ClusterRecord>

/** What the initial cluster waits for, or its members. */
export type ClusterPlan =
  | { kind: 'no-store' }
  | { kind: 'waiting'; expected: number; assigned: string[] }
  | { kind: 'ready'; members: ClusterMember[] }

/** How many store members the groups announce: `expected`, or one per address. */
export function expectedMembers(groups: Iterable<Group>): number {
  let expected = 0
  for (const group of groups) {
    const kiln = group.metadata?.kiln
    if (kiln?.role === 'store') expected += kiln.expected ?? Object.keys(kiln.addresses).length
  }
  return expected
}

/** Decides whether the initial cluster can be written; members in order of their names. */
export function planCluster(groups: Iterable<Group>, machines: Iterable<MachineRecord>): ClusterPlan {
  const members: ClusterMember[] = []
  for (const machine of machines) {
    if (machine.role !== 'store' || machine.state === 'discovered' || !machine.name || !machine.address)
      continue
    members.push({ name: machine.name, address: machine.address })
  }
  const expected = expectedMembers(groups)
  if (expected === 0 && members.length === 0) return { kind: 'no-store' }
  members.sort((a, b) => (a.name < b.name ? -1 : 1))
  if (members.length < expected) return { kind: 'waiting', expected, assigned: members.map((m) => m.name) }
  return { kind: 'ready', members }
}

/** `name=https://address:2380,...` of etcd's `--initial-cluster`. */
