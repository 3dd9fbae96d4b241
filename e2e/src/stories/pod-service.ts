import { PodStatus, ServiceRecord, storeKeys } from '@kiln/schemas'
import type { Story } from '../story.ts'
import { expect, until } from '../waiting.ts'

export const podService: Story = {
  name: 'pod-service',
  summary: "a pod's service is in the store and answers other machines",
  budgetSeconds: 240,
  timeoutSeconds: 900,
  needs: ['vms'],
  fixture: 'three-machines',
  async run(context) {
    const { signal, say, figure } = context
    const cluster = await context.cluster()
    const services = await until('every machine has a service', { timeoutMs: 60_000, signal }, async () => {
      const { entries } = await cluster.store.getPrefix(storeKeys.services)
      const ready = entries.filter(({ text }) => ServiceRecord.parse(JSON.parse(text)).ready)
      return ready.length >= cluster.machines.length ? ready : undefined
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

      const name = `${pod}.${machine.name}.${entry.key.split('/').at(-2)}.svc.kiln`
      await until(`${other.name} finds ${name}`, { timeoutMs: 60_000, signal }, async () => {
        const answer = await cluster.shell(other.name, `getent ahostsv4 ${name}`, { signal })
        return answer.output.includes(address) ? answer : undefined
      })
    }
    figure('services', String(services.length))
    const { output } = await cluster.shell('node1', memoryCommand, { signal })
    const memory = daemonMemory(output)
    expect(memory.length > 0, `the daemons are in the process list: ${output.slice(0, 200)}`)
    const sum = (of: 'rssMiB' | 'pssMiB'): number => memory.reduce((total, one) => total + one[of], 0)
    const each = memory.map(({ name, rssMiB }) => `${name} ${Math.round(rssMiB)}`).join(', ')
    figure('RSS', `${each}: ${Math.round(sum('rssMiB'))} MiB`)
    figure('memory of all, shared pages counted once', `${Math.round(sum('pssMiB'))} MiB`)
  },
}

/** A line for each of Kiln's daemons: what proc(5) says in smaps_rollup, and its command line. */
const memoryCommand =
  "ps -eo pid=,args= | grep /lib/kiln/kiln- | while read pid args; do echo $(grep -E '^(Rss|Pss):' /proc/$pid/smaps_rollup) $args; done"

/**
 * Memory of Kiln's daemons in MiB: resident (RSS), and proportional (PSS), which divides a page among those who have it mapped. The
 * daemons share most of Node's own program.
 */
export function daemonMemory(list: string): { name: string; rssMiB: number; pssMiB: number }[] {
  const found = list.matchAll(/^Rss: +(\d+) kB Pss: +(\d+) kB .*\/lib\/kiln\/(kiln-[a-z]+)\.mjs/gm)
  return [...found].map(([, rss, pss, name]) => ({
    name: name!,
    rssMiB: Number(rss) / 1024,
    pssMiB: Number(pss) / 1024,
  }))
}

/** The image has no HTTP client: bash speaks TCP by itself. */
const httpGet = (address: string, port: number): string =>
  `timeout 20 bash -c 'exec 3<>/dev/tcp/${address}/${port}; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'`
