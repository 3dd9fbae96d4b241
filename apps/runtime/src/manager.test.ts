import type { StoredImage } from '@kiln/oci'
import { type PodManifest, type PodStatus, parsePod } from '@kiln/schemas'
import { assert, createLog, Fault } from '@kiln/service'
import { VirtualClock } from '@kiln/simulation'
import { expect, test } from 'vitest'
import { Manager } from './manager.ts'
import { type PortMapping, podNetworkOf } from './network-plan.ts'
import type { PodRecord } from './pod-record.ts'

function podOf(name: string, spec: object = {}, image = 'oci:/x'): PodManifest {
  const container = { name: 'web', image, ports: [{ containerPort: 80, hostPort: 8000 }] }
  const { pod, problems } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { containers: [container], ...spec },
  })
  assert(pod, JSON.stringify(problems))
  return pod
}

const wanted = (...pods: PodManifest[]): Map<string, PodManifest> =>
  new Map(pods.map((pod) => [pod.metadata.name, pod]))

/** A manager on a machine in memory, where everything works at once and containers end when asked. */
function setUp(options: { refusal?: Fault; records?: PodRecord[] } = {}) {
  const running = new Set<string>()
  const sandboxes = new Set<string>()
  let mapped: PortMapping[] = []
  let statuses: PodStatus[] = []
  const key = (record: PodRecord, container: string): string => `${record.uid}/${container}`
  const clock = new VirtualClock()
  const manager = new Manager({
    kernel: {
      findSandbox: async (record) => (sandboxes.has(record.uid) ? { pid: 1, startTime: '1' } : undefined),
      statistics: async () => [],
      openSandbox: async (record) => {
        sandboxes.add(record.uid)
        return { pid: 1, startTime: '1' }
      },
      startContainer: async ({ record, container }) => {
        running.add(key(record, container.name))
        return { startedAtMs: 0 }
      },
      observe: async (record, container) =>
        running.has(key(record, container))
          ? { pid: 7 }
          : { code: 0, signal: 0, oomKilled: false, lost: false, finishedAtMs: 0 },
      signal: async (record, container) => {
        running.delete(key(record, container))
      },
      exec: async () => undefined,
      planExec: async () => '/nonexistent',
      forget: async () => undefined,
      close: async (record) => {
        sandboxes.delete(record.uid)
      },
    },
    images: { acquire: async () => ({ configDigest: 'sha256:1', chainId: 'sha256:2' }) as StoredImage },
    records: {
      load: async () => options.records ?? [],
      save: async () => undefined,
      remove: async () => undefined,
      removeStaleExits: async () => undefined,
    },
    clock,
    log: createLog('test', 'silent'),
    machineId: 'node1',
    machineAddress: '10.77.0.11',
    bootId: 'boot1',
    network: {
      connect: async () => undefined,
      disconnect: async () => undefined,
      refresh: async () => undefined,
      mapPorts: async (mappings) => {
        mapped = mappings
      },
    },
    podNetwork: podNetworkOf('10.88', '10.77.0.11'),
    refusal: options.refusal,
    storePodsMayUseHost: false,
    changed: (now) => {
      statuses = now
    },
  })
  const settle = async (): Promise<void> => {
    for (let round = 0; round < 80; round++) {
      for (let turn = 0; turn < 50; turn++) await Promise.resolve()
      clock.advance(100)
    }
  }
  const summary = (): string[] =>
    statuses.map((pod) => `${pod.name} ${pod.source} ${pod.phase}${pod.ready ? ' ready' : ''}`)
  return { manager, settle, summary, mapped: () => mapped, statuses: () => statuses, running, clock }
}

test('pods follow their files: they come, change and go', async () => {
  const { manager, settle, summary, statuses, mapped } = setUp()
  manager.want('file', wanted(podOf('one'), podOf('two')))
  await settle()
  expect(summary()).toEqual(['one file Running ready', 'two file Running ready'])
  expect(mapped().map(({ address }) => address)).toEqual(['10.88.11.2', '10.88.11.3'])
  const before = statuses()[0]?.uid
  manager.want('file', wanted(podOf('one', {}, 'oci:/other')))
  await settle()
  expect(summary()).toEqual(['one file Running ready'])
  expect(statuses()[0]?.uid).not.toBe(before)
  manager.want('file', new Map())
  await settle()
  expect(summary()).toEqual([])
  expect(mapped()).toEqual([])
})

test('a broken file is shown and stops nothing', async () => {
  const { manager, settle, summary } = setUp()
  manager.want('file', wanted(podOf('one')))
  await settle()
  manager.want('file', new Map(), [{ name: 'broken', message: 'broken.yaml: kind Invalid' }])
  await settle()
  expect(summary()).toEqual(['broken file Refused', 'one file Running ready'])
})

test('a file wins over the store and over what was run by hand', async () => {
  const { manager, settle, summary } = setUp()
  await manager.run(podOf('one'))
  manager.want('store', wanted(podOf('one', { hostname: 'store' }), podOf('two')))
  manager.want('file', wanted(podOf('one', { hostname: 'file' })))
  await settle()
  expect(summary()).toEqual(['one file Running ready', 'two store Running ready'])
  await expect(manager.run(podOf('two'))).rejects.toMatchObject({ code: 'POD_NAME_TAKEN' })
  expect(() => manager.remove('one')).toThrow(/comes from a file/)
})

test('pods from the store may not reach into the machine, pods from its own files may', async () => {
  const { manager, settle, summary, statuses } = setUp()
  const hostPath = { volumes: [{ name: 'etc', hostPath: { path: '/etc' } }] }
  manager.want('store', wanted(podOf('net', { hostNetwork: false }), podOf('path', hostPath)))
  manager.want('file', wanted(podOf('own', hostPath)))
  await settle()
  expect(summary()).toEqual(['net store Running ready', 'own file Running ready', 'path store Refused'])
  expect(statuses()[2]).toMatchObject({
    code: 'POD_NOT_ALLOWED',
    message: expect.stringContaining('spec.volumes[0].hostPath'),
  })
})

test('pods from the store choose no networks of the machine', async () => {
  const { manager, settle, statuses } = setUp()
  const choosing = (name: string, networks: string): PodManifest => {
    const pod = podOf(name)
    pod.metadata.annotations['kiln.dev/networks'] = networks
    return pod
  }
  const lan = choosing('lan', 'default,lan')
  const own = choosing('own', '[{"name":"bridge","mac":"02:00:00:00:00:01"}]')
  manager.want('store', wanted(lan, own, choosing('none', 'none'), choosing('plain', 'default')))
  await settle()
  expect(statuses().map(({ name, phase, message }) => [name, phase, message])).toEqual([
    ['lan', 'Refused', expect.stringContaining('networks of the machine')],
    ['none', 'Running', undefined],
    ['own', 'Refused', expect.stringContaining('as with bridge')],
    ['plain', 'Running', undefined],
  ])
})

test('what the store has and is no pod is refused with its reason, and touches no other pod', async () => {
  const { manager, settle, summary, statuses } = setUp()
  manager.want('store', wanted(podOf('one'), podOf('two')))
  await settle()
  manager.want('store', wanted(podOf('one')), [{ name: 'bad', message: 'spec.x is not supported' }])
  await settle()
  expect(summary()).toEqual(['bad store Refused', 'one store Running ready'])
  expect(statuses()[0]).toMatchObject({ code: 'POD_INVALID', message: 'spec.x is not supported' })
  manager.want('store', wanted(podOf('one')))
  expect(summary()).toEqual(['one store Running ready'])
})

test('a machine that cannot run pods says so for each of them', async () => {
  const refusal = new Fault('RUNTIME_NEEDS_ROOT', 'pods need root')
  const { manager, settle, statuses } = setUp({ refusal })
  manager.want('file', wanted(podOf('one')))
  await settle()
  expect(statuses()).toMatchObject([
    { name: 'one', phase: 'Refused', code: 'RUNTIME_NEEDS_ROOT', message: 'pods need root' },
  ])
  await expect(manager.run(podOf('two'))).rejects.toMatchObject({ code: 'RUNTIME_NEEDS_ROOT' })
  await expect(manager.stop('one')).rejects.toMatchObject({ code: 'RUNTIME_NEEDS_ROOT' })
  await expect(manager.stop('three')).rejects.toMatchObject({ code: 'POD_NOT_FOUND' })
})

test('what was run by hand stays after the daemon is replaced, and until it is removed', async () => {
  const first = setUp()
  await first.manager.run(podOf('one'))
  await first.settle()
  const record = structuredClone(first.manager.record('one'))
  const second = setUp({ records: [record] })
  await second.manager.adopt()
  second.running.add(`${record.uid}/web`)
  second.manager.want('file', new Map())
  await second.settle()
  expect(second.summary()).toEqual(['one api Running ready'])
  second.manager.remove('one')
  await second.settle()
  expect(second.summary()).toEqual([])
})

test('a stopped pod offers no ports until it is started again', async () => {
  const { manager, settle, summary, mapped } = setUp()
  manager.want('file', wanted(podOf('one')))
  await settle()
  await manager.stop('one')
  await settle()
  expect(summary()).toEqual(['one file Stopped'])
  expect(mapped()).toEqual([])
  await manager.start('one')
  await settle()
  expect(summary()).toEqual(['one file Running ready'])
  expect(mapped()).toHaveLength(1)
})

const draining = { graceSeconds: 30, forSeconds: 60, withdrawn: async () => undefined }

test('a drain withdraws the services first, then ends the pods, and starts none', async () => {
  const { manager, settle, summary, running } = setUp()
  manager.want('file', wanted(podOf('one')))
  await settle()
  let asked = 0
  const drain = () =>
    manager.drain({
      ...draining,
      withdrawn: async () => {
        asked++
        expect(summary()[0]).toBe('one file Running')
      },
    })
  expect(running.size).toBe(1)
  expect(await drain()).toEqual(['one'])
  manager.want('store', wanted(podOf('two')))
  await settle()
  expect(await drain()).toEqual([])
  expect([running.size, asked]).toEqual([0, 2])
  await manager.resume()
  await settle()
  expect(summary()).toEqual(['one file Running ready', 'two store Running ready'])
})

test('a machine that nobody tells to go on draining runs its pods again', async () => {
  const { manager, settle, summary, running, clock } = setUp()
  manager.want('file', wanted(podOf('one')))
  await settle()
  await manager.drain(draining)
  await settle()
  expect(running.size).toBe(0)
  clock.advance(60_000)
  await settle()
  expect(summary()).toEqual(['one file Running ready'])
})
