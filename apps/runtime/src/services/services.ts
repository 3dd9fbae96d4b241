import type { EtcdClient } from '@kiln/etcd-api'
import type { PodStatus } from '@kiln/schemas'
import type { Log } from '@kiln/service'
import { openPublisher, type Publisher } from '../publication.ts'
import type { Machine, Settings } from '../settings.ts'
import { serveDns } from './dns-server.ts'
import { followServices } from './follow-services.ts'
import { pointResolver, resolverDropIn } from './resolver.ts'
import { answerQuestion } from './service-answer.ts'
import { ServiceDirectory } from './service-directory.ts'
import { serviceEntries, serviceInstances } from './service-entries.ts'

/** Services of a machine: told to the store, heard from it, and answered by name. */
export type Services = {
  /** All pods of this machine, each time. */
  publish(statuses: PodStatus[]): void
  /** Publishes to a store and follows it, until `signal`. */
  connect(store: EtcdClient, signal: AbortSignal): void
  /** Pods are to ask at other addresses of the machine. */
  gatewaysMoved(): Promise<void>
  /** Resolves when the store says what was published, or did not take it. */
  settled(): Promise<void>
  close(): Promise<void>
}

/** Starts answering, at first for the pods of this machine; `connect` adds those of the others. */
export async function openServices(input: {
  settings: Pick<Settings, 'serviceDnsAddress' | 'serviceDnsPort' | 'serviceLeaseSeconds' | 'resolverFile'>
  machine: Machine
  /** The machine's addresses in the pods' networks, as they are now. */
  podGateways(): string[]
  /** Whether other machines reach an address of a pod. */
  reached(address: string): boolean
  run(command: string, args: string[]): Promise<unknown>
  log: Log
}): Promise<Services> {
  const { settings, machine, log } = input
  const directory = new ServiceDirectory(machine.id)
  const at = { address: settings.serviceDnsAddress, port: settings.serviceDnsPort }
  const server = await serveDns({
    ...at,
    answer: (question) => answerQuestion(question, directory, Math.random),
    log,
  })
  const point = (): Promise<void> =>
    pointResolver({
      file: settings.resolverFile,
      text: resolverDropIn({ ...at, podGateways: input.podGateways() }),
      run: input.run,
      log,
    })
  await point()
  let publisher: Publisher | undefined
  return {
    publish: (statuses) => {
      const instances = serviceInstances(statuses, machine, input.reached)
      directory.setOwn(instances)
      publisher?.publish(serviceEntries(instances))
    },
    connect: (store, signal) => {
      publisher = openPublisher({ store, leaseSeconds: settings.serviceLeaseSeconds, log })
      void followServices({ store, directory, log, signal })
    },
    gatewaysMoved: point,
    settled: async () => await publisher?.settled(),
    close: async () => {
      publisher?.close()
      await server.close()
    },
  }
}
