import {
  type ContainerStatus,
  containersOf,
  type PodContainer,
  type PodManifest,
  type PodStatus,
  serviceLabel,
} from '@kiln/schemas'
import type { PortMapping } from './network-plan.ts'
import type { PodRecord, PodSource } from './pod-record.ts'
import { type ContainerState, podPhase } from './restart-policy.ts'

export type StatusFacts = {
  machineId: string
  machineAddress: string | undefined
  pids: ReadonlyMap<string, number>
  /** Names of containers whose probes say that they are ready. */
  ready: ReadonlySet<string>
}

/** What the runtime says about a pod, from its record. Pure. */
export function podStatus(record: PodRecord, facts: StatusFacts): PodStatus {
  const { manifest } = record
  const init = new Set(manifest.spec.initContainers.map(({ name }) => name))
  const containers = containersOf(manifest).map(({ name, image }): ContainerStatus => {
    const entry = record.containers[name]!
    const pid = facts.pids.get(name)
    return {
      ...containerStatus(name, image, entry.state),
      ...(init.has(name) ? { init: true } : { ready: pid !== undefined && facts.ready.has(name) }),
      // Recorded as running before it is started, and running once it was seen.
      ...(entry.state.kind === 'running' && pid === undefined
        ? { state: 'waiting', reason: 'Creating' }
        : {}),
      ...(entry.imageId ? { imageId: entry.imageId } : {}),
      ...(entry.state.kind === 'running' && pid !== undefined ? { pid } : {}),
    }
  })
  const statesOf = (list: readonly PodContainer[]): ContainerState[] =>
    list.map(({ name }) => record.containers[name]!.state)
  const running = containers.some((container) => container.state === 'running')
  const addresses = podAddresses(record, facts.machineAddress)
  const worst = containers.find((container) => container.code !== undefined)
  const phase = podPhase(statesOf(manifest.spec.initContainers), statesOf(manifest.spec.containers))
  return {
    formatVersion: 1,
    ...identity(manifest, facts.machineId, record.source),
    uid: record.uid,
    phase: record.stopped ? (running ? 'Running' : 'Stopped') : phase,
    ready: !record.stopped && containers.every((container) => container.ready ?? true),
    ...(worst ? { code: worst.code, message: worst.message } : {}),
    ...(addresses[0] === undefined ? {} : { address: addresses[0], addresses }),
    containers,
    since: record.createdAt,
  }
}

/** All addresses of a pod, the one it is known by first; those of the machine for a pod in its network. */
export function podAddresses(record: PodRecord, machineAddress: string | undefined): string[] {
  const address = record.manifest.spec.hostNetwork ? machineAddress : record.address
  return record.addresses ?? (address === undefined ? [] : [address])
}

/** A pod that does not run here, and why. */
export function refusedStatus(
  manifest: PodManifest,
  reason: { machineId: string; source: PodSource; code: string; message: string; since: string },
): PodStatus {
  return {
    formatVersion: 1,
    ...identity(manifest, reason.machineId, reason.source),
    uid: manifest.metadata.uid ?? '',
    phase: 'Refused',
    ready: false,
    code: reason.code,
    message: reason.message,
    containers: [],
    since: reason.since,
  }
}

function identity(
  manifest: PodManifest,
  machine: string,
  source: PodSource,
): Pick<PodStatus, 'name' | 'machine' | 'source' | 'service' | 'ports'> {
  return {
    name: manifest.metadata.name,
    machine,
    source,
    service: manifest.metadata.labels[serviceLabel] ?? manifest.metadata.name,
    ports: portsOf(manifest),
  }
}

export function portsOf(manifest: PodManifest): PodStatus['ports'] {
  return manifest.spec.containers.flatMap(({ ports }) =>
    ports.map(({ name, containerPort, hostPort, protocol }) => {
      const outside = manifest.spec.hostNetwork ? containerPort : hostPort
      return {
        port: containerPort,
        protocol,
        ...(name === undefined ? {} : { name }),
        ...(outside === undefined ? {} : { hostPort: outside }),
      }
    }),
  )
}

function containerStatus(name: string, image: string, state: ContainerState): ContainerStatus {
  const { lastExit } = state
  return {
    name,
    image,
    state: state.kind,
    restarts: state.restarts,
    ...(state.kind === 'waiting' ? state.waiting : {}),
    ...(state.kind === 'running' ? { startedAt: new Date(state.startedAtMs).toISOString() } : {}),
    ...(lastExit
      ? {
          lastExit: {
            code: lastExit.code,
            signal: lastExit.signal,
            oomKilled: lastExit.oomKilled,
            finishedAt: new Date(lastExit.finishedAtMs).toISOString(),
            ...(lastExit.message === undefined ? {} : { message: lastExit.message }),
          },
        }
      : {}),
  }
}

/** What address translation must do for a pod of the built-in bridge; for others their plug-ins do it. */
export function portMapping(record: PodRecord): PortMapping | undefined {
  if (record.manifest.spec.hostNetwork || record.address === undefined || record.stopped) return undefined
  if (record.networks?.builtIn === false) return undefined
  return { address: record.address, ports: portsOf(record.manifest) }
}
