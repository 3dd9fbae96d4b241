import type { EtcdClient } from '@kiln/etcd-api'
import { type PodManifest, parsePod, storeKeys } from '@kiln/schemas'
import type { Log } from '@kiln/service'
import { followPrefix } from './follow-prefix.ts'

/**
 * Follows the pods that the store wants on a machine. `changed` gets them all, each time; what cannot be read is
 * logged and left out, and while the store is away nothing changes.
 */
export function followStorePods(input: {
  store: Pick<EtcdClient, 'getPrefix' | 'watch'>
  machineId: string
  log: Log
  signal: AbortSignal
  changed(pods: Map<string, PodManifest>): void
}): Promise<void> {
  const { store, log, signal } = input
  const prefix = storeKeys.pods(input.machineId)
  const pods = new Map<string, PodManifest>()

  const take = (key: string, text: string | undefined): void => {
    const name = key.slice(prefix.length)
    const manifest = text === undefined ? undefined : readPod(name, text, log)
    if (manifest) pods.set(name, manifest)
    else pods.delete(name)
  }
  return followPrefix({
    store,
    prefix,
    log,
    signal,
    reset: (entries) => {
      pods.clear()
      for (const { key, text } of entries) take(key, text)
      input.changed(new Map(pods))
    },
    changed: (changes) => {
      for (const { key, text } of changes) take(key, text)
      input.changed(new Map(pods))
    },
  })
}

function readPod(name: string, text: string, log: Log): PodManifest | undefined {
  try {
    const { pod, problems } = parsePod(JSON.parse(text))
    if (pod && pod.metadata.name === name) return pod
    log.warn({ pod: name, problems: problems.slice(0, 5) }, 'pod of the store is refused')
  } catch {
    log.warn({ pod: name }, 'pod of the store is not JSON')
  }
  return undefined
}
