import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { EtcdClient, type StoreEntry } from '@kiln/etcd-api'
import { MachineStatus, storeKeys } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { LabRecord, StateFolder } from './state-folder.ts'

const requestTimeoutMs = 5_000

/** Paths of the certificate an operator of this cluster has. */
export function adminIdentity(state: StateFolder): { ca: string; cert: string; key: string } {
  return {
    ca: join(state.adminPki, 'ca.pem'),
    cert: join(state.adminPki, 'admin.pem'),
    key: join(state.adminPki, 'admin.key'),
  }
}

export const storeEndpoints = (lab: LabRecord): string[] =>
  lab.machines.map((machine) => `https://127.0.0.1:${machine.storePort}`)

/** The cluster's store, as its operator. */
export async function openStore(state: StateFolder, lab: LabRecord): Promise<EtcdClient> {
  const paths = adminIdentity(state)
  const [ca, cert, key] = await Promise.all(
    [paths.ca, paths.cert, paths.key].map((path) => readFile(path, 'utf8')),
  ).catch((cause) => {
    throw new Fault('CLUSTER_STOPPED', 'the cluster has no operator certificate yet', { cause })
  })
  return new EtcdClient({
    endpoints: storeEndpoints(lab),
    tls: { ca: ca!, cert: cert!, key: key! },
    timeoutMs: requestTimeoutMs,
  })
}

/** Runs `work` with the cluster's store and closes it. */
export async function withStore<T>(
  state: StateFolder,
  lab: LabRecord,
  work: (store: EtcdClient) => Promise<T>,
): Promise<T> {
  const store = await openStore(state, lab)
  try {
    return await work(store)
  } finally {
    store.close()
  }
}

export type StoreMember = { name: string; healthy: boolean; leader: boolean; version?: string }

/** Every machine's store member as it answers itself. */
export async function storeMembers(store: EtcdClient, lab: LabRecord): Promise<StoreMember[]> {
  return await Promise.all(
    lab.machines.map(async ({ name, storePort }): Promise<StoreMember> => {
      try {
        const status = await store.status(`https://127.0.0.1:${storePort}`)
        const leader = status.leaderId !== 0n && status.leaderId === status.memberId
        return { name, healthy: status.leaderId !== 0n, leader, version: status.version }
      } catch {
        return { name, healthy: false, leader: false }
      }
    }),
  )
}

/** What the machines say about themselves in the store; one that stopped is not there. */
export async function machineStatuses(store: EtcdClient): Promise<Map<string, MachineStatus>> {
  const statuses = new Map<string, MachineStatus>()
  for (const { key, value } of await listJson(store, storeKeys.machines)) {
    const parsed = MachineStatus.safeParse(value)
    if (parsed.success) statuses.set(key.slice(storeKeys.machines.length), parsed.data)
  }
  return statuses
}

/** Keys and JSON values below a prefix; `undefined` for what is not JSON. */
export async function listJson(
  store: EtcdClient,
  prefix: string,
): Promise<{ key: string; value: unknown }[]> {
  const { entries } = await store.getPrefix(prefix)
  return entries.map((entry) => ({ key: entry.key, value: jsonOf(entry) }))
}

/** The JSON value of an entry, or `undefined` if there is no entry or no JSON in it. */
export function jsonOf(entry: StoreEntry | undefined): unknown {
  if (!entry) return undefined
  try {
    return JSON.parse(entry.text)
  } catch {
    return undefined
  }
}
