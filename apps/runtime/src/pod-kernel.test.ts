import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isAlive, type ProcessId } from '@kiln/linux'
import { assert } from '@kiln/service'
import { expect, test } from 'vitest'
import { type Namespace, networksOf, openNamespace, tracesOn, whyNoPlugins } from './testing/cni-machine.ts'
import {
  forget,
  letGo,
  logOf,
  newFolder,
  onHost,
  podFolder,
  runtime,
  shellPod,
  until,
} from './testing/host-runtime.ts'

onHost(
  'a pod runs from an archive as its user, in its own namespaces, and is removed without a trace',
  async () => {
    const folder = newFolder()
    const manager = await runtime(folder)
    await manager.run(
      shellPod('trap "exit 0" TERM; echo "$MACHINE $(uname -n) $(id -u)"; cat /etc/hosts; sleep 1000 & wait'),
    )
    const pod = await until(manager, (status) => status?.ready === true)
    const pid = pod?.containers[0]?.pid
    expect(readlinkSync(`/proc/${pid}/ns/net`)).not.toBe(readlinkSync('/proc/self/ns/net'))
    await until(manager, () => logOf(folder).includes('localhost'))
    expect(logOf(folder)).toMatch(/stdout F node1 hello 1234\n/)
    manager.remove('hello')
    await until(manager, (status) => status === undefined)
    expect(readdirSync(join(folder, 'state/life/run'))).toEqual([])
    expect(readdirSync(join(folder, 'state/exits'))).toEqual([])
    expect(readdirSync(join(folder, 'run/pods'))).toEqual([])
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(folder)
  },
)

onHost('a new daemon takes up a running pod with the same process, and sees it end', async () => {
  const folder = newFolder()
  const first = await runtime(folder)
  await first.run(shellPod('echo up; sleep 1000', { restartPolicy: 'Never' }))
  const before = await until(first, (status) => status?.ready === true)
  await letGo(first)
  const second = await runtime(folder)
  const after = await until(
    second,
    (status) => status?.ready === true && status.containers[0]?.pid !== undefined,
  )
  expect(after?.containers[0]?.pid).toBe(before?.containers[0]?.pid)
  process.kill(after?.containers[0]?.pid ?? 0, 'SIGKILL')
  const ended = await until(second, (status) => status?.phase === 'Failed')
  expect(ended?.containers[0]?.lastExit).toMatchObject({ code: 137, signal: 9 })
})

onHost(
  'an init container prepares a volume, and a probe in the container says when it is ready',
  async () => {
    const folder = newFolder()
    const manager = await runtime(folder)
    const base = shellPod('sleep 1000').spec.containers[0]!
    const shared = { name: 'shared', mountPath: '/shared' }
    const probe = { exec: { command: ['test', '-e', '/shared/ready'] }, periodSeconds: 1, timeoutSeconds: 30 }
    const volumeMounts = [...base.volumeMounts, shared]
    await manager.run(
      shellPod('', {
        volumes: [
          { name: 'usr', hostPath: { path: '/usr' } },
          { name: 'shared', emptyDir: {} },
        ],
        initContainers: [
          {
            name: 'first',
            image: base.image,
            command: ['sh', '-c', 'echo made > /shared/file'],
            volumeMounts,
          },
        ],
        containers: [
          {
            name: 'main',
            image: base.image,
            command: ['sh', '-c', 'cat /shared/file; sleep 1000'],
            volumeMounts,
            readinessProbe: probe,
            lifecycle: { postStart: { exec: { command: ['touch', '/shared/hooked'] } } },
          },
        ],
      }),
    )
    await until(manager, () => logOf(folder).includes('made'))
    const volume = join(podFolder(folder), 'volumes/shared')
    await until(manager, () => existsSync(join(volume, 'hooked')))
    expect(manager.statuses()[0]).toMatchObject({ phase: 'Running', ready: false })
    writeFileSync(join(volume, 'ready'), '')
    await until(manager, (status) => status?.ready === true)
  },
)

onHost(
  'a container that fails is restarted with its exit code kept, and what ignores TERM is killed',
  async () => {
    const folder = newFolder()
    const manager = await runtime(folder)
    await manager.run(
      shellPod('[ -e /tmp/x ] && echo seen; mkdir -p /tmp; echo go; sleep 0.2; exit 5', {
        securityContext: { runAsUser: 0 },
      }),
    )
    const again = await until(
      manager,
      (status) => (status?.containers[0]?.restarts ?? 0) >= 1 && status?.ready === true,
    )
    expect(again?.containers[0]?.lastExit).toMatchObject({ code: 5 })
    expect(logOf(folder)).not.toContain('seen')
    manager.remove('hello')
    await until(manager, (status) => status === undefined)
    await manager.run(shellPod('sleep 1000'))
    const running = await until(manager, (status) => status?.ready === true)
    await manager.stop('hello', 0)
    await until(manager, (status) => status?.phase === 'Stopped')
    expect(await isAlive({ pid: running?.containers[0]?.pid ?? 0, startTime: '0' })).toBe(false)
  },
)

onHost('containers of a pod share network and volumes but not processes', async () => {
  const folder = newFolder()
  const manager = await runtime(folder)
  const pod = shellPod('readlink /proc/self/ns/net >/shared/a; sleep 1000', {
    securityContext: { runAsUser: 5 },
  })
  const [main] = pod.spec.containers
  assert(main, 'a container')
  const shared = { name: 'shared', mountPath: '/shared', readOnly: false, mountPropagation: 'None' as const }
  pod.spec.volumes.push({ name: 'shared', emptyDir: { medium: '' } })
  main.volumeMounts.push(shared)
  const script =
    'until [ -s /shared/a ]; do sleep 0.05; done; cat /shared/a; readlink /proc/self/ns/net; echo $$$$; sleep 1000'
  pod.spec.containers.push({ ...main, name: 'side', command: ['sh', '-c', script] })
  await manager.run(pod)
  await until(manager, (status) => status?.ready === true)
  const side = (): string[] => {
    try {
      return readFileSync(join(podFolder(folder), 'c-side/log'), 'utf8')
        .trim()
        .split('\n')
    } catch {
      return []
    }
  }
  await until(manager, () => side().length >= 3)
  const lines = side().map((line) => line.split(' ').at(-1))
  expect(lines[0]).toBe(lines[1])
  expect(lines[2]).toBe('1')
  manager.remove('hello', 0)
  await until(manager, (status) => status === undefined)
})

onHost('a pod whose image is not there says so', async () => {
  const manager = await runtime(newFolder())
  const pod = shellPod('true')
  pod.spec.containers[0]!.image = 'oci-archive:/no/such/image.tar'
  await manager.run(pod)
  const status = await until(manager, (each) => each?.code !== undefined)
  expect(status).toMatchObject({
    phase: 'Pending',
    code: 'IMAGE_NOT_FOUND',
    containers: [{ state: 'waiting', reason: 'ImageMissing' }],
  })
})

const noPlugins = whyNoPlugins()
if (noPlugins) console.log(`skipped: pods with CNI networks on this host: ${noPlugins}`)

/** Somebody there says that nothing listens. */
async function expectReachable(from: Namespace, host: string): Promise<void> {
  const script = `require('net').connect({host:'${host}',port:9,timeout:5000}).on('error',(e)=>console.log(e.code)).on('timeout',()=>process.exit(1))`
  expect(await from.run(process.execPath, '-e', script)).toBe('ECONNREFUSED\n')
}

test.skipIf(noPlugins !== undefined)(
  'a pod has the networks it asks for, over restarts of the daemon and of its sandbox, and leaves none',
  async () => {
    const folder = newFolder()
    const machine = await openNamespace()
    try {
      const cni = networksOf({ folder, machine: machine.path })
      const pod = shellPod('cat /etc/hosts; echo "at $IPS"; sleep 1000')
      pod.metadata.annotations['kiln.dev/networks'] = 'bridge@net0'
      pod.spec.containers[0]!.env.push({
        name: 'IPS',
        valueFrom: { fieldRef: { fieldPath: 'status.podIPs' } },
      })
      const first = await runtime(folder, cni)
      await first.run(pod)
      const status = await until(first, (each) => each?.ready === true)
      const [v4, v6] = status?.addresses ?? []
      expect(status?.address).toBe(v4)
      expect(`${v4} ${v6}`).toMatch(/^10\.89\.11\.\d+ fd6b:696c:6e00:b::\w+$/)
      await until(first, () => logOf(folder).includes(`at ${v4},${v6}`))
      expect(logOf(folder)).toContain(`${v6}\thello`)
      await expectReachable(machine, v4!)

      // The next daemon finds the pod as it is; then the sandbox dies, and the pod comes back with networks.
      await letGo(first)
      const second = await runtime(folder, cni)
      expect((await until(second, (each) => each?.ready === true))?.addresses).toEqual([v4, v6])
      const sandbox = JSON.parse(readFileSync(join(folder, 'run/pods/hello/sandbox.json'), 'utf8')) as {
        pid: number
      }
      process.kill(sandbox.pid, 'SIGKILL')
      process.kill(second.statuses()[0]?.containers[0]?.pid ?? 0, 'SIGKILL')
      const again = await until(second, (each) => each?.ready === true && each.addresses?.[0] !== v4)
      await expectReachable(machine, again!.address!)
      expect((await tracesOn(machine, folder))['leases']).toHaveLength(1 + 2)

      second.remove('hello', 0)
      await until(second, (each) => each === undefined)
      const traces = await tracesOn(machine, folder)
      expect(traces['leases']).toEqual(['bridge'])
      expect(traces['attachments']).toEqual([])
      expect(traces['links']).toEqual(['', 'kiln-cni0', 'lo'])
      expect(
        [...traces['rules']!, ...traces['rules6']!].filter((rule) => /hello|10\.89|fd6b/.test(rule)),
      ).toEqual([])
    } finally {
      await machine.close()
    }
  },
)

test.skipIf(noPlugins !== undefined)(
  'a pod whose daemon was lost between its sandbox and its network has another sandbox, with the network',
  async () => {
    const folder = newFolder()
    const machine = await openNamespace()
    try {
      const cni = networksOf({ folder, machine: machine.path })
      const pod = shellPod('sleep 1000')
      pod.metadata.annotations['kiln.dev/networks'] = 'bridge'
      // What would come after the sandbox never does: as after a kill, the round is not gone on with.
      const lost = await runtime(folder, { ...cni, connect: () => new Promise(() => undefined) })
      forget(lost)
      await lost.run(pod)
      const file = join(folder, 'run/pods/hello/sandbox.json')
      for (let attempt = 0; !existsSync(file) && attempt < 200; attempt++) await sleep(20)
      const half = JSON.parse(readFileSync(file, 'utf8')) as ProcessId
      expect(await isAlive(half)).toBe(true)

      const next = await runtime(folder, cni)
      const status = await until(next, (each) => each?.ready === true)
      expect(await isAlive(half)).toBe(false)
      await expectReachable(machine, status!.address!)
      next.remove('hello', 0)
      await until(next, (each) => each === undefined)
      expect((await tracesOn(machine, folder))['leases']).toEqual(['bridge'])
    } finally {
      await machine.close()
    }
  },
)
