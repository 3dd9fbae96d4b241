import { containersOf, type PodStatus } from '@kiln/schemas'
import type { PodRecord } from '../pod-record.ts'
import type { Waiting } from '../restart-policy.ts'

/** rkt's words for the state of a pod. */
export type StateWord =
  | 'embryo'
  | 'preparing'
  | 'prepared'
  | 'running'
  | 'exited'
  | 'aborted prepare'
  | 'exited garbage'
  | 'deleting'

/** A pod as `list` and `status` show it, in whatever state. */
export type PodEntry = {
  uuid: string
  name: string
  state: StateWord
  source: string
  /** The daemon keeps it running, or stopped until it is started again; others are over or were not run yet. */
  supervised: boolean
  /** It is run once, until it is over. */
  once: boolean
  createdAt: string
  startedAt?: string
  exitedAt?: string
  /** Of a pod that is over: of the container that failed first, or 0. */
  exitCode?: number
  /** All containers are ready. */
  ready: boolean
  addresses: string[]
  networks: string[]
  apps: {
    name: string
    image: string
    state: string
    pid?: number
    exitCode?: number
    /** Why it could not be started; it is tried again. */
    waits?: string
  }[]
}

/** What is shown of a pod, from its record and, while it runs, its status. Pure. */
export function entryOf(
  uuid: string,
  record: PodRecord | undefined,
  state: StateWord,
  status?: PodStatus,
): PodEntry {
  const apps = (record ? containersOf(record.manifest) : []).map(({ name, image }) => {
    const last = record?.containers[name]?.state
    const seen = status?.containers.find((each) => each.name === name)
    return {
      name,
      image,
      state: seen?.state ?? last?.kind ?? 'waiting',
      ...(seen?.pid === undefined ? {} : { pid: seen.pid }),
      ...(last?.kind === 'exited' && last.lastExit ? { exitCode: last.lastExit.code } : {}),
      ...(last?.kind === 'waiting' && last.failures > 0 ? { waits: reasonOf(last.waiting) } : {}),
    }
  })
  // A pod that is run once is over only when nothing of it is left to be done.
  const stopped = !record?.once && /^(Stopped|Succeeded|Failed)$/.test(status?.phase ?? '')
  const ended = state === 'exited' || state === 'exited garbage' || stopped
  const begins = Object.values(record?.containers ?? {}).flatMap((each) =>
    each.state.kind === 'running' ? each.state.startedAtMs : [],
  )
  const startedAt =
    record?.once?.startedAt ?? (begins.length > 0 ? new Date(Math.min(...begins)).toISOString() : undefined)
  const chosen = record?.networks
  return {
    uuid,
    name: record?.manifest.metadata.name ?? '',
    state: stopped ? 'exited' : state,
    source: record?.source ?? '',
    supervised: status !== undefined,
    once: record?.once !== undefined,
    createdAt: record?.createdAt ?? '',
    ...(startedAt === undefined ? {} : { startedAt }),
    ...(record?.once?.exitedAt === undefined ? {} : { exitedAt: record.once.exitedAt }),
    ...(record && ended ? { exitCode: exitCodeOfPod(record) } : {}),
    ready: status?.ready ?? false,
    addresses: status?.addresses ?? [],
    networks: chosen ? [...(chosen.builtIn ? ['built-in'] : []), ...chosen.cni.map((each) => each.name)] : [],
    apps,
  }
}

const reasonOf = ({ reason, code, message }: Waiting): string =>
  [code ?? reason, ...(message === undefined ? [] : [message])].join(': ')

/** The code of the container that failed first; 0 if none did. Pure. */
export function exitCodeOfPod(record: PodRecord): number {
  const failed = Object.values(record.containers)
    .flatMap(({ state }) =>
      state.kind === 'exited' && state.lastExit && state.lastExit.code !== 0 ? state.lastExit : [],
    )
    .sort((a, b) => a.finishedAtMs - b.finishedAtMs)
  return failed[0]?.code ?? 0
}
