import { chownSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodePlan, encodePlan } from '@kiln/linux'
import { ImageConfig, type PodManifest, parsePod } from '@kiln/schemas'
import { assert } from '@kiln/service'
import { expect, test } from 'vitest'
import { planContainer } from './container-plan.ts'
import { expand, planProcess, resolveUser } from './pod-process.ts'

const facts = {
  machineId: 'node1',
  hostIp: '10.77.0.11',
  podIps: ['10.88.11.2'],
  uid: 'u1',
  seccompDir: '/etc/kiln/seccomp',
  filesMax: 1024,
}
const root = { uid: 0, gid: 0, groups: [] }

function podWith(container: object, spec: object = {}, annotations: object = {}): PodManifest {
  const { pod, problems } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'hello', labels: { tier: 'web' }, annotations },
    spec: { containers: [{ name: 'web', image: 'oci:/x', ...container }], ...spec },
  })
  assert(pod, JSON.stringify(problems))
  return pod
}

const imageWith = (config: object): ImageConfig =>
  ImageConfig.parse({ architecture: 'amd64', os: 'linux', config, rootfs: { type: 'layers', diff_ids: [] } })

const processOf = (container: object, config: object = { Cmd: ['/x'] }) => {
  const pod = podWith(container)
  return planProcess(pod, pod.spec.containers[0]!, imageWith(config), root, facts)
}

test('command and arguments follow the rules of Kubernetes over those of the image', () => {
  const image = { Entrypoint: ['/entry'], Cmd: ['image'] }
  expect(processOf({}, image).args).toEqual(['/entry', 'image'])
  expect(processOf({ args: ['pod'] }, image).args).toEqual(['/entry', 'pod'])
  expect(processOf({ command: ['/pod'] }, image).args).toEqual(['/pod'])
  expect(processOf({ command: ['/pod'], args: ['x'] }, image).args).toEqual(['/pod', 'x'])
  expect(() => processOf({}, {})).toThrow(/names a command/)
})

test('variables come from image, pod and the pod\u2019s own facts, and refer to each other', () => {
  const { env, args } = processOf(
    {
      command: ['/x', '$(MACHINE)/$(TIER) $$(MACHINE) $(NOT)'],
      env: [
        { name: 'MACHINE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
        { name: 'TIER', valueFrom: { fieldRef: { fieldPath: "metadata.labels['tier']" } } },
        { name: 'BOTH', value: '$(MACHINE)-$(FROM_IMAGE)' },
      ],
    },
    { Env: ['FROM_IMAGE=yes', 'PATH=/bin'] },
  )
  expect(env).toMatchObject({ BOTH: 'node1-yes', PATH: '/bin', HOSTNAME: 'hello' })
  expect(args[1]).toBe('node1/web $(MACHINE) $(NOT)')
  expect(expand('$', {})).toBe('$')
})

test('capabilities can be dropped and harmless ones added, but none that leads out', () => {
  const capabilities = (add: string[], drop: string[]) =>
    processOf({ securityContext: { capabilities: { add, drop } } }).capabilities.effective
  expect(capabilities([], ['ALL'])).toBe(0n)
  expect(capabilities(['NET_BIND_SERVICE'], ['ALL'])).toBe(1n << 10n)
  expect(capabilities([], []) & (1n << 27n)).toBe(0n)
  for (const name of ['SYS_ADMIN', 'MKNOD', 'SYS_MODULE', 'ALL', 'NOTHING'])
    expect(() => capabilities([name], []), name).toThrow(/may not have/)
  expect(() => capabilities([], ['NOTHING'])).toThrow(/does not exist/)
})

test('the user comes from the pod, or is looked up in the image, and root can be forbidden', async () => {
  const tree = mkdtempSync(join(tmpdir(), 'kiln-tree-'))
  mkdirSync(join(tree, 'etc'))
  writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n')
  writeFileSync(join(tree, 'etc/group'), 'root:x:0:\nweb:x:34:\nlogs:x:40:web,other\n')
  const user = (User: string, container: object = {}) => {
    const pod = podWith(container)
    return resolveUser(tree, imageWith({ User }), pod, pod.spec.containers[0]!)
  }
  expect(await user('')).toEqual({ uid: 0, gid: 0, groups: [] })
  expect(await user('web')).toEqual({ uid: 33, gid: 34, groups: [40] })
  expect(await user('web:logs')).toEqual({ uid: 33, gid: 40, groups: [] })
  expect(await user('7:8')).toEqual({ uid: 7, gid: 8, groups: [] })
  expect(await user('33')).toEqual({ uid: 33, gid: 34, groups: [40] })
  expect(await user('web', { securityContext: { runAsUser: 9 } })).toEqual({ uid: 9, gid: 0, groups: [] })
  await expect(user('nobody')).rejects.toMatchObject({ code: 'POD_USER_UNKNOWN' })
  await expect(user('web:nobody')).rejects.toMatchObject({ code: 'POD_USER_UNKNOWN' })
  expect(() => processOf({ securityContext: { runAsNonRoot: true } })).toThrow(/must not/)
  // rkt's forms: a name of the image, or a file of it.
  mkdirSync(join(tree, 'srv/own'), { recursive: true })
  chownSync(join(tree, 'srv/own'), 33, 40)
  symlinkSync('/etc', join(tree, 'link'))
  const asked = (options: object, container: object = {}) => {
    const { name } = podWith({}).spec.containers[0]!
    const pod = podWith(container, {}, { 'kiln.dev/options': JSON.stringify({ apps: { [name]: options } }) })
    return resolveUser(tree, imageWith({ User: 'root:logs' }), pod, pod.spec.containers[0]!)
  }
  expect(await asked({ user: 'web' })).toEqual({ uid: 33, gid: 34, groups: [40] })
  expect(await asked({ user: '/srv/own', group: '/srv/own' })).toEqual({ uid: 33, gid: 40, groups: [] })
  expect(await asked({ group: 'web' }, { securityContext: { runAsUser: 9 } })).toMatchObject({
    uid: 9,
    gid: 34,
  })
  for (const user of ['nobody', '/srv/none', '/link/passwd'])
    await expect(asked({ user })).rejects.toMatchObject({ code: 'POD_USER_UNKNOWN' })
})

test('an image whose passwd is a link does not show the machine\u2019s users', async () => {
  const tree = mkdtempSync(join(tmpdir(), 'kiln-tree-'))
  mkdirSync(join(tree, 'etc'))
  symlinkSync('/etc/passwd', join(tree, 'etc/passwd'))
  const pod = podWith({})
  const asDaemon = resolveUser(tree, imageWith({ User: 'daemon' }), pod, pod.spec.containers[0]!)
  await expect(asDaemon).rejects.toMatchObject({ code: 'POD_USER_UNKNOWN' })
})

const planOf = (pod: PodManifest, groups?: { infra: string; containers: string }) => {
  const container = pod.spec.containers[0]!
  return planContainer({
    pod,
    uid: 'u1',
    machineId: 'node1',
    container,
    attempt: 3,
    process: planProcess(pod, container, imageWith({ Cmd: ['/x'] }), root, facts),
    tree: '/trees/1',
    paths: { state: '/s/pods/hello', run: '/r/pods/hello', exits: '/s/exits' },
    groups,
    sandbox: { pid: 5, startTime: '99' },
    journal: true,
    subPaths: new Map(),
    logFileBytes: 65536,
  })
}

test('a container shares network, ipc and host name with its sandbox, and has processes and mounts of its own', () => {
  const plan = planOf(podWith({}), { infra: '/cg/infra', containers: '/cg' })
  expect(plan).toMatchObject({
    namespaces: ['pid', 'mount', 'cgroup'],
    join: { pid: 5, startTime: '99', namespaces: ['network', 'ipc', 'uts'] },
    monitorCgroup: '/cg/infra',
    cgroup: '/cg/c-web',
    exitFile: '/s/exits/hello.web.3.json',
    root: { kind: 'overlay', lower: '/trees/1', upper: '/s/pods/hello/c-web/layers/upper' },
  })
  expect(planOf(podWith({}, { hostNetwork: true })).join?.namespaces).toEqual(['ipc', 'uts'])
  expect(decodePlan(encodePlan(plan)).records.length).toBeGreaterThan(50)
})

test('volumes are mounted last, where they belong, and read-only if asked', () => {
  const pod = podWith(
    {
      volumeMounts: [
        { name: 'data', mountPath: '/data' },
        { name: 'fast', mountPath: '/fast', readOnly: true },
        { name: 'conf', mountPath: '/etc/app.conf' },
      ],
    },
    {
      volumes: [
        { name: 'data', emptyDir: {} },
        { name: 'fast', emptyDir: { medium: 'Memory' } },
        { name: 'conf', hostPath: { path: '/etc/app.conf', type: 'File' } },
      ],
    },
  )
  expect(planOf(pod).mounts.slice(-3)).toMatchObject([
    { source: '/s/pods/hello/volumes/data', target: '/data', flags: ['bind', 'rec', 'nosuid', 'nodev'] },
    { source: '/r/pods/hello/volumes/fast', flags: ['bind', 'rec', 'nosuid', 'nodev', 'ro'] },
    { source: '/etc/app.conf', create: 'file' },
  ])
})
