import { PodStatus, ServiceRecord, storeKeys } from '@kiln/schemas'
import type { Story } from '../story.ts'
import { expect, until } from '../waiting.ts'

export const podService: Story = {
  name: 'pod-service',
  summary: "a pod's service is in the store and answers other machines",
  budgetSeconds: 240,
  timeoutSeconds: 600,
  needs: ['vms'],
  fixture: 'three-machines',
  async run(context) {
    const { signal, say, figure } = context
    const cluster = await context.cluster()
    const services = await until('every machine has a service', { timeoutMs: 60_000, signal }, async () => {
      const { entries } = await cluster.store.getPrefix(storeKeys.services)
      return entries.length >= cluster.machines.length ? entries : undefined
    })
    for (const machine of cluster.machines) {
      const entry = services.find(({ key }) => key.split('/').at(-1)?.startsWith(`${machine.name}:`))
      expect(entry, `a service of ${machine.name} is in the store`)
      expect(entry.lease !== 0n, `the service of ${machine.name} is held by a lease`)
      const { address, ports } = ServiceRecord.parse(JSON.parse(entry.text))
      const pod = entry.key.split(':').at(-1) ?? ''
      const status = await cluster.store.get(storeKeys.podStatus({ machine: machine.name, pod }))
      expect(
        status && PodStatus.parse(JSON.parse(status.text)).phase === 'Running',
        `${pod} runs on ${machine.name}`,
      )

      const other = cluster.machines.find((one) => one !== machine)!
      const port = ports[0]?.port ?? 0
      const { output } = await until(
        `${other.name} reaches ${pod}`,
        { timeoutMs: 60_000, signal },
        async () => {
          const answer = await cluster.shell(other.name, httpGet(address, port), { signal })
          return answer.output.includes('200 OK') ? answer : undefined
        },
      )
      say(`${other.name} asks ${address}:${port}: ${output.split('\n').at(-1)}`)
      expect(output.includes(machine.name), `the pod of ${machine.name} says where it runs`)
    }
    figure('services', String(services.length))
    const { output } = await cluster.shell('node1', 'ps -eo rss=,args=', { signal })
    const memory = daemonMemory(output)
    expect(memory.size > 0, `the daemons are in the process list: ${output.slice(0, 200)}`)
    for (const [name, mebibytes] of memory) figure(`RSS ${name}`, `${mebibytes} MiB`)
  },
}

/** Resident memory of Kiln's daemons in MiB, from lines of `ps -eo rss=,args=`. */
export function daemonMemory(list: string): Map<string, number> {
  const found = [...list.matchAll(/^\s*(\d+) .*\/usr\/lib\/kiln\/(kiln-[a-z]+)\.mjs/gm)]
  return new Map(found.map(([, kibibytes, name]) => [name!, Math.round(Number(kibibytes) / 1024)]))
}

/** The image has no HTTP client: bash speaks TCP by itself. */
const httpGet = (address: string, port: number): string =>
  `timeout 20 bash -c 'exec 3<>/dev/tcp/${address}/${port}; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'`
