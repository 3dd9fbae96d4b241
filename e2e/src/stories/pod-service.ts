import { PodStatus, ServiceRecord, storeKeys } from '@kiln/schemas'
import type { Cluster } from '../cluster.ts'
import type { CommandResult } from '../kiln-command.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'

export const podService: Story = {
  name: 'pod-service',
  summary:
    "a pod's service is in the store and answers other machines; pods reach each other by VXLAN; the operator asks them from afar",
  budgetSeconds: 360,
  timeoutSeconds: 1200,
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
    await askedFromAfar(cluster, context)
    await podsReachEachOther(cluster, context)
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

/** Runs a shell's script in a pod. What stands behind the pod is the program's, so that the cluster is named before it. */
function inPod(
  cluster: Cluster,
  { pod, script, signal }: { pod: string; script: string; signal: AbortSignal },
): Promise<CommandResult> {
  const args = ['pods', 'exec', '--state', cluster.state, pod, '--', 'sh', '-c', script]
  return cluster.kiln(args, { signal, mayFail: true })
}

/** What the operator asks of pods on whatever machine they run. */
async function askedFromAfar(cluster: Cluster, { signal, say }: StoryContext): Promise<void> {
  const kiln = (...args: string[]) => cluster.kiln(['pods', ...args], { signal })
  const { stdout: events } = await kiln('events', 'node3/hello')
  expect(
    / Started +node3\/hello\/web /.test(events),
    `the start of the pod is an event: ${events.slice(-300)}`,
  )
  const { stdout: use } = await kiln('stats', '--json')
  const stats = JSON.parse(use) as { machine: string; memoryBytes: number; memoryLimitBytes: number }[]
  say(`pods use: ${stats.map(({ machine, memoryBytes }) => `${machine} ${memoryBytes} bytes`).join(', ')}`)
  expect(
    stats.length >= 3 && stats.every((each) => each.memoryBytes > 0 && each.memoryLimitBytes === 32 << 20),
    'every machine says what its pod uses, and of how much',
  )
  const failed = await inPod(cluster, { pod: 'node3/hello', script: 'id -u; exit 7', signal })
  expect(
    failed.code === 7 && failed.stdout.trim() !== '0',
    `a program runs as the pod's user, and its code comes back: ${failed.code}`,
  )
  await kiln('logs', 'node3/hello')
  const { stderr, code } = await cluster.kiln(['pods', 'logs', 'hello'], { signal, mayFail: true })
  expect(
    code !== 0 && stderr.includes('POD_AMBIGUOUS'),
    `a name that three machines have is refused: ${stderr}`,
  )
}

/** A pod that only pods reach, at node1, and one that plug-ins connect, at node2. Pods of a machine's own files may use its image. */
const withoutHostPort = 'inner'
const withPlugins = 'plugged'

/** A demonstration's pod of the machine without a port of the machine. */
const podText = (name: string, annotations: object): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, annotations },
    spec: {
      containers: [
        {
          name: 'web',
          image: 'boot://pods/hello.tar',
          env: [{ name: 'KILN_MACHINE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
          ports: [{ name: 'http', containerPort: 8000 }],
        },
      ],
    },
  })

/** Pods of two machines by VXLAN: address and name of one in the other; and a pod whose network is made by plug-ins. */
async function podsReachEachOther(cluster: Cluster, context: StoryContext): Promise<void> {
  const { signal, say, figure } = context
  const { store } = cluster
  const inner = { machine: 'node1', pod: withoutHostPort }
  const plugged = { machine: 'node2', pod: withPlugins }
  const running = (at: { machine: string; pod: string }): Promise<PodStatus> =>
    until(`${at.pod} runs at ${at.machine}`, { timeoutMs: 180_000, signal }, async () => {
      const entry = await store.get(storeKeys.podStatus(at))
      const status = entry && PodStatus.parse(JSON.parse(entry.text))
      return status?.phase === 'Running' && status.address !== undefined ? status : undefined
    })
  const began = performance.now()
  const config = { network: '10.88.0.0/16', backend: 'vxlan' }
  await store.put(storeKeys.networkConfig, JSON.stringify(config))
  await store.put(storeKeys.pod(inner), podText(inner.pod, {}))
  await store.put(storeKeys.pod(plugged), podText(plugged.pod, { 'kiln.dev/networks': 'bridge' }))
  try {
    const { address } = await running(inner)
    const served = await until(
      'the pod without a host port is told to all',
      { timeoutMs: 60_000, signal },
      async () => {
        const entry = await store.get(storeKeys.service({ service: inner.pod, ...inner }))
        const record = entry && ServiceRecord.parse(JSON.parse(entry.text))
        return record?.scope === 'cluster' ? record : undefined
      },
    )
    expect(served.address === address, `${inner.pod} is told at its own address: ${served.address}`)
    // From within a pod of the other machine, by address and by name. Debian's static busybox has a wget that crashes where there are
    // no shared libraries; its nc does not.
    for (const host of [address!, `${inner.pod}.svc.kiln`]) {
      const ask = `printf "GET / HTTP/1.0\\r\\n\\r\\n" | nc -w 5 ${host} 8000`
      const output = await until(
        `a pod of node2 reaches ${host}`,
        { timeoutMs: 120_000, signal },
        async () => {
          const { stdout } = await inPod(cluster, { pod: 'node2/hello', script: ask, signal })
          return stdout.includes('"machine":"node1"') ? stdout : undefined
        },
      )
      say(`a pod of node2 asks ${host}: ${output.trim().split('\n').at(-1)}`)
    }
    figure(
      'network between machines, to the first answer',
      `${Math.round((performance.now() - began) / 1000)} s`,
    )
    const { address: own, addresses } = await running(plugged)
    expect(
      addresses?.some((each) => each.includes(':')),
      `${plugged.pod} has IPv6 too: ${addresses}`,
    )
    const answer = await until(
      'the pod of the plug-ins answers',
      { timeoutMs: 180_000, signal },
      async () => {
        const { output } = await cluster.shell('node2', httpGet(own!, 8000), { signal })
        return output.includes('200 OK') ? output : undefined
      },
    )
    expect(answer.includes('node2'), 'the pod of the plug-ins says where it runs')
  } finally {
    await store.delete(storeKeys.pod(inner))
    await store.delete(storeKeys.pod(plugged))
    await store.delete(storeKeys.networkConfig)
  }
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
