import type { EtcdClient } from '@kiln/etcd-api'
import type { MachineFacts } from '@kiln/schemas'
import { describeError, type Log } from '@kiln/service'
import * as z from 'zod'
import { askRuntime } from './runtime-socket.ts'
import { findVoterProblems } from './store.ts'

/** How long the store may take to agree on another leader. */
const handOverMs = 15_000
const lookMs = 500
/** How long after the drain's own time the reboot may still be on its way before the pods come back by themselves. */
const rebootMarginSeconds = 180

export type DrainPorts = {
  facts: MachineFacts
  store: EtcdClient
  /** Socket of kiln-runtime; empty for none. */
  runtimeSocket: string
  /** How long pods get to end. */
  drainSeconds: number
  /** Milliseconds of a clock that never goes back. */
  elapsedMs(): number
  sleep(ms: number): Promise<void>
  log: Log
}

/**
 * Makes a machine ready to go: the store has its leader elsewhere, services are withdrawn, pods have ended within their
 * grace. Bounded, and never a reason not to reboot: what does not come about in time ends with the shutdown.
 */
export async function drainMachine(ports: DrainPorts): Promise<void> {
  const { log } = ports
  await handOverLeadership(ports).catch((error: unknown) =>
    log.warn({ error }, 'the leadership of the store was not handed over; the others elect a leader'),
  )
  await stopPods(ports).catch((error: unknown) =>
    log.warn({ error }, 'the pods were not stopped before the shutdown stops them'),
  )
}

/** Lets the pods run again: the reboot does not happen. kiln-runtime does so by itself when nobody tells it in time. */
export async function undrainMachine(ports: Pick<DrainPorts, 'runtimeSocket' | 'log'>): Promise<void> {
  if (!ports.runtimeSocket) return
  await askRuntime(ports.runtimeSocket, 'POST', '/v1/resume').catch((error: unknown) =>
    ports.log.warn({ error }, `the pods come back only later: ${describeError(error)}`),
  )
}

/** If the machine's own member leads, another voter takes over: nobody waits for an election when it goes. */
async function handOverLeadership({
  facts,
  store,
  elapsedMs,
  sleep,
  log,
}: Omit<DrainPorts, 'runtimeSocket' | 'drainSeconds'>): Promise<void> {
  const own = facts.storeEndpoints.find((endpoint) => new URL(endpoint).hostname === facts.address)
  if (facts.role !== 'store' || own === undefined) return
  const { leaderId, memberId } = await store.status(own)
  if (leaderId !== memberId) return
  const others = (await store.memberList()).filter((one) => !one.isLearner && one.id !== memberId)
  const target = others[0]
  if (!target) return
  await store.moveLeader(own, target.id)
  const began = elapsedMs()
  for (;;) {
    const problems = await findVoterProblems(store)
    const moved = (await store.status(own)).leaderId !== memberId
    if (moved && problems.length === 0) break
    if (elapsedMs() - began > handOverMs) {
      log.warn({ problems }, 'the store has not settled on its new leader')
      return
    }
    await sleep(lookMs)
  }
  log.info({ leader: target.name }, 'leadership of the store handed over')
}

const Draining = z.object({ running: z.array(z.string()) })

async function stopPods({
  runtimeSocket,
  drainSeconds,
  elapsedMs,
  sleep,
  log,
}: Omit<DrainPorts, 'facts' | 'store'>): Promise<void> {
  if (!runtimeSocket) return
  const began = elapsedMs()
  for (;;) {
    const request = { graceSeconds: drainSeconds, forSeconds: drainSeconds + rebootMarginSeconds }
    const { running } = Draining.parse(await askRuntime(runtimeSocket, 'POST', '/v1/drain', request))
    if (running.length === 0) break
    if (elapsedMs() - began > drainSeconds * 1000 + lookMs) {
      log.warn({ pods: running }, 'pods still run at the end of the drain')
      return
    }
    await sleep(lookMs)
  }
  log.info({ seconds: Math.round((elapsedMs() - began) / 1000) }, 'services withdrawn and pods stopped')
}
