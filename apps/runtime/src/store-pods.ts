import type { EtcdClient } from '@kiln/etcd-api'
import { type PodManifest, storeKeys } from '@kiln/schemas'
import type { Log } from '@kiln/service'
import { followPrefix } from './follow-prefix.ts'
import { type PodProblem, parsePodText, problemName } from './pod-files.ts'

/** So many of them have a status; all are logged. */
const problemsMax = 100

/**
 * Follows the pods that the store wants on a machine. `changed` gets them all, each time; what is no pod is
 * logged and among the problems, and while the store is away nothing changes.
 */
export function followStorePods(input: {
  store: Pick<EtcdClient, 'getPrefix' | 'watch'>
  machineId: string
  log: Log
  signal: AbortSignal
  changed(pods: Map<string, PodManifest>, problems: PodProblem[]): void
}): Promise<void> {
  const { store, log, signal } = input
  const prefix = storeKeys.pods(input.machineId)
  const pods = new Map<string, PodManifest>()
  const problems = new Map<string, string>()

  const take = (key: string, text: string | undefined): void => {
    const name = key.slice(prefix.length)
    pods.delete(name)
    problems.delete(name)
    if (text === undefined) return
    const read = readPod(name, text)
    if (typeof read !== 'string') {
      pods.set(name, read)
      return
    }
    log.warn({ pod: name, problem: read }, 'pod of the store is refused')
    problems.set(name, read)
  }
  const tell = (): void =>
    input.changed(
      new Map(pods),
      [...problems].slice(0, problemsMax).map(([name, message]) => ({ name: problemName(name), message })),
    )
  return followPrefix({
    store,
    prefix,
    log,
    signal,
    reset: (entries) => {
      pods.clear()
      problems.clear()
      for (const { key, text } of entries) take(key, text)
      tell()
    },
    changed: (changes) => {
      for (const { key, text } of changes) take(key, text)
      tell()
    },
  })
}

/** The pod, YAML or JSON as in files, or why it is none. */
function readPod(name: string, text: string): PodManifest | string {
  const { pods, problems } = parsePodText(text)
  const [pod, ...more] = pods
  if (problems.length > 0) return problems.slice(0, 5).join('; ')
  if (!pod || more.length > 0) return 'holds several pods, where a key has one'
  return pod.metadata.name === name
    ? pod
    : `metadata.name is ${pod.metadata.name}, and its key ends in ${name}`
}
