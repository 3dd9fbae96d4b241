import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { EtcdClient } from '@kiln/etcd-api'
import type { MachineFacts, PodStatus } from '@kiln/schemas'
import { askRuntime } from './runtime-socket.ts'

const run = promisify(execFile)
const timeoutMs = 10_000

/** The health gate: everything wrong with this machine now; empty means green. */
export async function findGateProblems(gate: {
  facts: MachineFacts
  store: EtcdClient | undefined
  units: string[]
  runtimeSocket: string
}): Promise<string[]> {
  const found = await Promise.all([
    storeProblems(gate.facts, gate.store),
    unitProblems(gate.units),
    gate.runtimeSocket ? podProblems(gate.runtimeSocket) : [],
  ])
  return found.flat()
}

/** The machine's own member has a leader, and a linearizable read goes through. */
async function storeProblems(facts: MachineFacts, store: EtcdClient | undefined): Promise<string[]> {
  if (!store) return []
  try {
    if (facts.role === 'store') {
      const own = facts.storeEndpoints.find((endpoint) => new URL(endpoint).hostname === facts.address)
      const status = own ? await store.status(own) : undefined
      if (!status) return ['this machine is a store member without an endpoint']
      if (status.leaderId === 0n) return ['the store member sees no leader']
    }
    await store.get('/kiln/health')
    return []
  } catch (error) {
    return [`the store does not answer: ${(error as Error).message}`]
  }
}

/** Daemons that should run do run. A unit whose conditions did not hold is none of this machine's. */
async function unitProblems(units: string[]): Promise<string[]> {
  if (units.length === 0) return []
  const shown = await run(
    'systemctl',
    [
      'show',
      '--property=Id,ActiveState,SubState,ConditionResult,LoadState,ConditionTimestampMonotonic',
      ...units,
    ],
    { timeout: timeoutMs },
  ).catch((error: Error) => error)
  if (shown instanceof Error) return [`systemd does not answer: ${shown.message}`]
  return readUnitProblems(shown.stdout)
}

/** Reads the blocks `systemctl show` prints, one a unit. */
export function readUnitProblems(text: string): string[] {
  return text
    .trim()
    .split(/\n\s*\n/)
    .map(
      (block) =>
        new Map(block.split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string])),
    )
    .flatMap((unit) => {
      const id = unit.get('Id') ?? 'a unit'
      if (unit.get('LoadState') !== 'loaded') return [`${id} is ${unit.get('LoadState')}`]
      if (unit.get('ActiveState') === 'active') return []
      const conditionFailed =
        unit.get('ConditionResult') === 'no' && unit.get('ConditionTimestampMonotonic') !== '0'
      if (unit.get('ActiveState') === 'inactive' && conditionFailed) return []
      return [`${id} is ${unit.get('ActiveState')} (${unit.get('SubState')})`]
    })
}

/** What the gate reads of a pod as kiln-runtime lists it. */
type ListedPod = Pick<PodStatus, 'name' | 'phase' | 'message'>

/** A pod that ended well, or that somebody stopped, is as it should be. */
const soundPhases: PodStatus['phase'][] = ['Running', 'Succeeded', 'Stopped']

async function podProblems(socket: string): Promise<string[]> {
  try {
    const pods = (await askRuntime(socket, 'GET', '/v1/pods')) as ListedPod[]
    return pods
      .filter((pod) => !soundPhases.includes(pod.phase))
      .map((pod) => `pod ${pod.name} is ${pod.phase}${pod.message ? `: ${pod.message}` : ''}`)
  } catch (error) {
    return [`kiln-runtime does not answer: ${(error as Error).message}`]
  }
}
