import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import { readMachineTls } from '@kiln/pki/machine'
import { MachineFacts, type PodStatus, storeKeys } from '@kiln/schemas'
import { parse } from 'yaml'
import * as z from 'zod'

/** Why a simulated machine runs no pod. */
export const podsUnsupported = {
  code: 'PODS_UNSUPPORTED',
  message: 'a simulated machine has no kernel of its own to run pods on; use kiln up without --embedded',
} as const

const Named = z.looseObject({ metadata: z.looseObject({ name: z.string() }) })
const leaseSeconds = 30

/** Puts a refusal into the store for every pod file of the machine, and keeps it until `signal`. */
export async function refusePods(at: { root: string; signal: AbortSignal }): Promise<void> {
  const etc = join(at.root, 'etc/kiln')
  const folder = join(etc, 'pods.d')
  if (!existsSync(folder)) return
  const facts = MachineFacts.parse(JSON.parse(readFileSync(join(etc, 'machine.json'), 'utf8')))
  const store = new EtcdClient({
    endpoints: facts.storeEndpoints,
    tls: () => readMachineTls(join(etc, 'pki')),
    timeoutMs: 5_000,
  })
  const statuses = new Map<string, string>()
  const writeAll = async (lease: bigint): Promise<void> => {
    for (const [key, value] of statuses) await store.put(key, value, { lease })
  }
  const lease = await store.holdLease({
    ttlSeconds: leaseSeconds,
    onGranted: (id) => void writeAll(id).catch(() => undefined),
  })
  try {
    for (const file of readdirSync(folder).filter((name) => /\.ya?ml$/.test(name))) {
      const pod = Named.parse(parse(readFileSync(join(folder, file), 'utf8'))).metadata.name
      const status: PodStatus = {
        formatVersion: 1,
        name: pod,
        machine: facts.id,
        uid: `${facts.id}-${pod}`,
        phase: 'Refused',
        ready: false,
        ...podsUnsupported,
        source: 'file',
        service: pod,
        ports: [],
        containers: [],
        since: new Date().toISOString(),
      }
      statuses.set(storeKeys.podStatus({ machine: facts.id, pod }), JSON.stringify(status))
    }
    await writeAll(lease.id)
    await new Promise<void>((resolve) => {
      if (at.signal.aborted) resolve()
      at.signal.addEventListener('abort', () => resolve(), { once: true })
    })
  } finally {
    await lease.close()
    store.close()
  }
}
