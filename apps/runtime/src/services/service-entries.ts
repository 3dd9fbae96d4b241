import { HostName, type PodStatus, ServiceRecord, storeKeys } from '@kiln/schemas'

/** A pod as an instance of a service. */
export type ServiceInstance = { service: string; machine: string; pod: string; record: ServiceRecord }

/**
 * The services that the pods of a machine are, ready or not. A pod is one while it runs, or is about to, and has ports: at the
 * machine's address and host ports, or, where it has none of these, at its own address, which only its machine reaches, unless it is of a network that all machines reach. Pure.
 */
export function serviceInstances(
  statuses: PodStatus[],
  machine: { id: string; address: string | undefined },
  reached: (address: string) => boolean = () => false,
): ServiceInstance[] {
  return statuses.flatMap((status) => {
    const record = serviceRecord(status, machine.address, reached)
    return record ? [{ service: status.service, machine: machine.id, pod: status.name, record }] : []
  })
}

/** What the store should say about services, by key. */
export function serviceEntries(instances: ServiceInstance[]): Map<string, string> {
  return new Map(instances.map((instance) => [storeKeys.service(instance), JSON.stringify(instance.record)]))
}

/** Reads the name of a key below `/kiln/services/`; undefined when it is no instance of a service. */
export function readServiceKey(key: string): Omit<ServiceInstance, 'record'> | undefined {
  const [service, instance, ...more] = key.slice(storeKeys.services.length).split('/')
  const [machine, pod, ...others] = instance?.split(':') ?? []
  const parts = [service, machine, pod]
  if (more.length > 0 || others.length > 0) return undefined
  if (!parts.every((part) => HostName.safeParse(part).success)) return undefined
  return { service: service!, machine: machine!, pod: pod! }
}

/** Reads an entry of the store; undefined when it is none, whoever wrote it. */
export function readServiceEntry(key: string, text: string): ServiceInstance | undefined {
  const name = readServiceKey(key)
  if (!name) return undefined
  try {
    return { ...name, record: ServiceRecord.parse(JSON.parse(text)) }
  } catch {
    return undefined
  }
}

function serviceRecord(
  status: PodStatus,
  machineAddress: string | undefined,
  reached: (address: string) => boolean,
): ServiceRecord | undefined {
  if (status.phase !== 'Running' && status.phase !== 'Pending') return undefined
  const { ready } = status
  const outside = status.ports.filter(({ hostPort }) => hostPort !== undefined)
  if (outside.length > 0) {
    if (machineAddress === undefined) return undefined
    const ports = outside.map((port) => ({ ...portOf(port), port: port.hostPort! }))
    return { address: machineAddress, ready, scope: 'cluster', ports }
  }
  if (status.address === undefined || status.ports.length === 0) return undefined
  const everywhere = [status.address, ...(status.addresses ?? [])].find(reached)
  if (everywhere !== undefined)
    return { address: everywhere, ready, scope: 'cluster', ports: status.ports.map(portOf) }
  const addresses = status.addresses?.slice(1, 17) ?? []
  return {
    address: status.address,
    ...(addresses.length > 0 ? { addresses } : {}),
    ready,
    scope: 'machine',
    ports: status.ports.map(portOf),
  }
}

const portOf = ({ name, port, protocol }: PodStatus['ports'][number]): ServiceRecord['ports'][number] => ({
  port,
  protocol,
  ...(name === undefined ? {} : { name }),
})
