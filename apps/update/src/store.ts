import type { EtcdClient } from '@kiln/etcd-api'
import { type MachineFacts, MachineStatus, RebootTurn, RolloutRecord, storeKeys } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** Entries of the log a voter may be behind and still count as caught up. */
const lagEntriesMax = 500n
/** Tries to write a record that others write too. */
const changesMax = 8

/**
 * Store endpoints with this machine's own member first. In a cluster without a store it is this machine's own address,
 * where nobody answers: the machine proves its boots and never updates, because nobody can give it a turn.
 */
export function orderEndpoints(facts: MachineFacts): string[] {
  if (facts.storeEndpoints.length === 0) return [`https://${facts.address}:2379`]
  const own = (endpoint: string): boolean => new URL(endpoint).hostname === facts.address
  return [...facts.storeEndpoints.filter(own), ...facts.storeEndpoints.filter((endpoint) => !own(endpoint))]
}

const turnKey = (group: string): string => storeKeys.reboot({ group, slot: 0 })

export async function readTurn(store: EtcdClient, group: string): Promise<RebootTurn | undefined> {
  const found = await store.get(turnKey(group))
  return found && parse(RebootTurn, found.text, turnKey(group))
}

/** Takes the turn unless somebody has it; the store decides, so exactly one machine wins. */
export async function takeTurn(store: EtcdClient, group: string, turn: RebootTurn): Promise<boolean> {
  return (await store.createIfMissing(turnKey(group), JSON.stringify(turn))).created
}

/** Gives the turn back if this machine still has it. */
export async function releaseTurn(store: EtcdClient, group: string, machine: string): Promise<void> {
  const found = await store.get(turnKey(group))
  if (!found || parse(RebootTurn, found.text, turnKey(group)).machine !== machine) return
  await store.compareAndDelete(turnKey(group), found.modRevision)
}

export async function readRollout(store: EtcdClient, at: RolloutOf): Promise<RolloutRecord | undefined> {
  const key = storeKeys.rollout(at)
  const found = await store.get(key)
  return found && parse(RolloutRecord, found.text, key)
}

type RolloutOf = { group: string; version: string }

/** A rollout that others began, halted or finished stays as it is. */
export async function beginRollout(store: EtcdClient, at: RolloutOf): Promise<void> {
  const rollout: RolloutRecord = { formatVersion: 1, state: 'rolling' }
  await store.createIfMissing(storeKeys.rollout(at), JSON.stringify(rollout))
}

/** Halts the rollout of one version, whatever else is published by now; the first reason stays. */
export async function haltRollout(
  store: EtcdClient,
  at: RolloutOf,
  why: { reason: string; machine: string },
): Promise<void> {
  await changeRollout(store, at, (before) =>
    before?.state === 'halted' ? undefined : { formatVersion: 1, ...before, state: 'halted', ...why },
  )
}

/** Writes what `change` makes of the record as it is; nothing when it answers nothing. */
async function changeRollout(
  store: EtcdClient,
  at: RolloutOf,
  change: (before: RolloutRecord | undefined) => RolloutRecord | undefined,
): Promise<void> {
  const key = storeKeys.rollout(at)
  for (let found = await store.get(key), tries = 1; ; tries++) {
    const after = change(found && parse(RolloutRecord, found.text, key))
    if (!after) return
    const modRevision = found?.modRevision ?? 0n
    const outcome = await store.compareAndSwap(key, { modRevision, value: JSON.stringify(after) })
    if (outcome.swapped) return
    if (tries === changesMax) throw new Fault('STORE_BUSY', `${key} changes faster than it can be written`)
    found = outcome.current
  }
}

/**
 * Marks the rollout done once every machine of the group that the store knows runs the release. A machine that is away has
 * no record, so it does not hold the mark back; it updates when it returns.
 */
export async function finishRollout(store: EtcdClient, at: RolloutOf): Promise<void> {
  const machines = (await store.getPrefix(storeKeys.machines)).entries
    .map((entry) => parse(MachineStatus, entry.text, entry.key))
    .filter((machine) => machine.group === at.group)
  if (machines.some((machine) => machine.version !== at.version)) return
  await changeRollout(store, at, (before) =>
    before?.state === 'rolling' ? { ...before, state: 'done' } : undefined,
  )
}

/** Why the store cannot spare a member now; empty when every voter answers, agrees on the leader and is caught up. */
export async function findVoterProblems(store: EtcdClient): Promise<string[]> {
  const voters = (await store.memberList()).filter((member) => !member.isLearner)
  const statuses = await Promise.all(
    voters.map(async (member) => {
      const endpoint = member.clientUrls[0]
      if (!endpoint) return { member, problem: `${member.name || 'a member'} has not joined` }
      try {
        return { member, status: await store.status(endpoint) }
      } catch {
        return { member, problem: `${member.name} does not answer` }
      }
    }),
  )
  const problems = statuses.flatMap((one) => one.problem ?? [])
  const answers = statuses.flatMap((one) => (one.status ? [{ name: one.member.name, ...one.status }] : []))
  if (new Set(answers.map((one) => one.leaderId)).size > 1)
    problems.push('the members disagree on the leader')
  let newest = 0n
  for (const one of answers) if (one.raftIndex > newest) newest = one.raftIndex
  for (const one of answers) {
    if (one.leaderId === 0n) problems.push(`${one.name} sees no leader`)
    if (one.raftAppliedIndex + lagEntriesMax < newest) problems.push(`${one.name} is behind`)
  }
  return problems
}

function parse<T>(
  schema: { safeParse(value: unknown): { success: boolean; data?: T } },
  text: string,
  key: string,
): T {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined
  }
  const result = schema.safeParse(value)
  if (!result.success)
    throw new Fault('STORE_RECORD_INVALID', `${key} does not hold what belongs there`, {
      remedy: `read it with "etcdctl get ${key}" and delete it if it is not Kiln's`,
    })
  return result.data as T
}
