import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { buildNative } from '@kiln/linux'
import { writeImageArchive } from '@kiln/oci'
import { type PodManifest, type PodStatus, parsePod } from '@kiln/schemas'
import { assert, createLog, systemClock } from '@kiln/service'
import { afterEach, beforeAll, test } from 'vitest'
import type { CniNetworks } from '../cni/pod-networks.ts'
import { type EventLog, openEventLog } from '../events/event-log.ts'
import { bootId } from '../host.ts'
import { type Images, openImages } from '../images.ts'
import { PodLife } from '../life/pod-life.ts'
import { Manager } from '../manager.ts'
import type { Network } from '../network.ts'
import { podNetworkOf } from '../network-plan.ts'
import { openKernel, type PodKernel } from '../pod-kernel.ts'
import { openRecords } from '../pod-record.ts'

// Pods on this host: root is enough, as limits (cgroup v2) and addresses are left out; those are proven in virtual machines.
const missing = process.getuid?.() === 0 ? undefined : 'making namespaces without root'
if (missing) console.log(`skipped: running pods on this host: ${missing}`)
export const onHost: (name: string, run: () => Promise<void>, timeoutMs?: number) => void = test.skipIf(
  missing !== undefined,
)

const base = mkdtempSync(join(tmpdir(), 'kiln-runtime-'))
/** An image with the machine's own programs, once `/usr` is mounted. */
export const image = join(base, 'image.tar')
let initPath = ''

beforeAll(async () => {
  initPath = await buildNative(base)
  const links = ['bin', 'lib', 'lib64', 'sbin']
  await writeImageArchive(image, {
    layers: [
      [
        { path: 'usr', type: 'directory' },
        { path: 'etc', type: 'directory' },
        { path: 'etc/passwd', content: 'web:x:1234:1235::/:/bin/sh\n' },
        ...links.map((path) => ({ path, type: 'symlink' as const, target: `usr/${path}` })),
      ],
    ],
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    config: { User: 'web', Env: ['PATH=/bin'] },
  })
}, 120_000)

/** A test that fails must not leave its pods running. */
const opened: Manager[] = []
afterEach(async () => {
  for (const manager of opened.splice(0).reverse()) {
    for (const { name } of manager.statuses()) manager.remove(name, 0)
    for (let attempt = 0; manager.statuses().length > 0 && attempt < 100; attempt++) await sleep(50)
    await manager.leave()
  }
})

/** The daemon is lost: nobody ends it. */
export function forget(manager: Manager): void {
  opened.splice(opened.indexOf(manager), 1)
}

/** The daemon ends, its pods do not. */
export async function letGo(manager: Manager): Promise<void> {
  forget(manager)
  await manager.leave()
}

const noNetwork: Network = {
  connect: async () => undefined,
  disconnect: async () => undefined,
  refresh: async () => undefined,
  mapPorts: async () => undefined,
}

/** A runtime over a folder; another one over the same folder is the daemon after a restart. */
export async function runtime(folder: string, cni?: CniNetworks): Promise<Manager> {
  return (await openRuntime(folder, cni)).manager
}

/** The same with the life of its pods, their kernel, and what asks of them. */
export async function openRuntime(
  folder: string,
  cni?: CniNetworks,
): Promise<{
  manager: Manager
  life: PodLife
  kernel: PodKernel
  initPath: string
  events: EventLog
  images: Images
}> {
  const log = createLog('test', 'silent')
  const stateDir = join(folder, 'state')
  const signal = new AbortController().signal
  const images = await openImages({
    folder: join(stateDir, 'images'),
    bootUrl: undefined,
    bytesMax: 1e9,
    registriesFile: join(folder, 'registries.json'),
    registryAuthFile: join(folder, 'registry-auth.json'),
    imagePolicyFile: join(folder, 'image-policy.json'),
    signal,
    log,
  })
  const kernel = openKernel({
    stateDir,
    runDir: join(folder, 'run'),
    initPath,
    machineId: 'node1',
    machineAddress: '10.77.0.11',
    journal: false,
    logFileBytes: 65536,
    podPidsDefault: 100,
    configMapsDir: join(folder, 'config-maps'),
    seccompDir: join(folder, 'seccomp'),
    network: noNetwork,
    cni,
    podGateway: undefined,
    treeOf: (each) => images.treeOf(each),
    listImages: () => images.list(),
    place: undefined,
  })
  const events = await openEventLog({ stateDir, fileBytesMax: 1 << 20, now: () => Date.now(), log })
  let life: PodLife | undefined
  const manager = new Manager({
    kernel,
    images,
    records: openRecords(stateDir, log),
    clock: { now: () => Date.now(), after: systemClock.after },
    log,
    machineId: 'node1',
    machineAddress: '10.77.0.11',
    bootId: bootId(),
    network: noNetwork,
    cni,
    podNetwork: podNetworkOf('10.88', '10.77.0.11'),
    refusal: undefined,
    storePodsMayUseHost: false,
    backOffFirstMs: 1000,
    tell: (event) => events.add(event),
    changed: () => undefined,
    over: (record) => life?.over(record),
  })
  life = new PodLife({
    stateDir,
    bootId: bootId(),
    images,
    treeOf: (each) => images.treeOf(each),
    listImages: () => images.list(),
    manager,
    journal: false,
    tell: (event) => events.add(event),
    now: () => Date.now(),
    log,
  })
  await life.adopt()
  await manager.adopt()
  opened.push(manager)
  return { manager, life, kernel, initPath, events, images }
}

export function shellPod(script: string, more: object = {}, inContainer: object = {}): PodManifest {
  const { pod, problems } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'hello' },
    spec: {
      terminationGracePeriodSeconds: 3,
      containers: [
        {
          name: 'main',
          image: `docker-archive:${image}`,
          command: ['sh', '-c', script],
          env: [{ name: 'MACHINE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
          volumeMounts: [{ name: 'usr', mountPath: '/usr', readOnly: true }],
          ...inContainer,
        },
      ],
      volumes: [{ name: 'usr', hostPath: { path: '/usr' } }],
      ...more,
    },
  })
  assert(pod, JSON.stringify(problems))
  return pod
}

export async function until(
  manager: Manager,
  holds: (pod: PodStatus | undefined) => boolean,
): Promise<PodStatus | undefined> {
  for (let attempt = 0; attempt < 400; attempt++) {
    const pod = manager.statuses().find((each) => each.name === 'hello')
    if (holds(pod)) return pod
    manager.wake('hello')
    await sleep(50)
  }
  throw new Error(`still ${JSON.stringify(manager.statuses())}`)
}

/** The folder of the one pod that runs. */
export function podFolder(folder: string): string {
  const run = join(folder, 'state/life/run')
  return join(run, (existsSync(run) ? readdirSync(run)[0] : undefined) ?? 'none')
}

export function logOf(folder: string): string {
  const file = join(podFolder(folder), 'c-main/log')
  return existsSync(file) ? readFileSync(file, 'utf8') : ''
}

export const newFolder = (): string => mkdtempSync(join(base, 'r-'))
