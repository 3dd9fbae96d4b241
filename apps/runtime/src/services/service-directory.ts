import type { ServiceInstance } from './service-entries.ts'

/** What is asked for: a service, or its instances on a machine, or one of them. */
export type ServiceQuery = { service: string; machine?: string | undefined; pod?: string | undefined }

/**
 * The services of the cluster as this machine knows them. Its own pods are told by its own runtime, sooner than by the store
 * and also without one; those of other machines come from the store, and the last that was heard stays while it is away.
 */
export class ServiceDirectory {
  readonly #machine: string
  #own: ServiceInstance[] = []
  /** By service, then by `machine:pod`; of other machines only. */
  readonly #others = new Map<string, Map<string, ServiceInstance>>()

  constructor(machine: string) {
    this.#machine = machine
  }

  /** All pods of this machine, each time. */
  setOwn(instances: ServiceInstance[]): void {
    this.#own = instances
  }

  /** All that the store has. */
  replace(instances: Iterable<ServiceInstance>): void {
    this.#others.clear()
    for (const instance of instances) this.put(instance)
  }

  /** An instance that came or changed. */
  put(instance: ServiceInstance): void {
    if (instance.machine === this.#machine) return
    const found = this.#others.get(instance.service) ?? new Map<string, ServiceInstance>()
    found.set(instanceName(instance), instance)
    this.#others.set(instance.service, found)
  }

  /** An instance that went, or cannot be read any more. */
  delete(at: { service: string; machine: string; pod: string }): void {
    const found = this.#others.get(at.service)
    found?.delete(instanceName(at))
    if (found?.size === 0) this.#others.delete(at.service)
  }

  /** Instances that exist and can be reached from here, ready or not; undefined when there is no such name at all. */
  find(query: ServiceQuery): ServiceInstance[] | undefined {
    const { service, machine, pod } = query
    const all = [
      ...this.#own.filter((instance) => instance.service === service),
      ...(this.#others.get(service)?.values() ?? []),
    ].filter(
      (instance) =>
        (machine === undefined || instance.machine === machine) &&
        (pod === undefined || instance.pod === pod),
    )
    if (all.length === 0) return undefined
    return all.filter(({ record, machine: at }) => record.scope === 'cluster' || at === this.#machine)
  }
}

const instanceName = ({ machine, pod }: { machine: string; pod: string }): string => `${machine}:${pod}`
