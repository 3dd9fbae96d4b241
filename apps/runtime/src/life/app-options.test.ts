import { readPodOptions } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { readApp, splitApps } from './app-flags.ts'
import { podOfApps, withNetwork } from './app-options.ts'

test('apps are split at ---, and only of commands that have apps', () => {
  const argv = ['--socket', '/s', 'run', 'a', '--', 'x', '---', 'b', '--exec', '/c', '--', '-l', '---', 'd']
  expect(splitApps(argv)).toEqual({
    argv: ['--socket', '/s', 'run', 'a', '--', 'x'],
    more: [['b', '--exec', '/c', '--', '-l'], ['d']],
  })
  const exec = ['exec', 'pod', 'echo', '---', 'run']
  expect(splitApps(exec)).toEqual({ argv: exec, more: [] })
  expect(readApp(['b', '--exec', '/c', '--', '-l'])).toEqual({
    image: 'b',
    args: ['-l'],
    options: { exec: '/c' },
  })
})

test('flags of a pod and its apps become a manifest, the app’s own variables before those of all', () => {
  const pod = podOfApps(
    [
      {
        image: 'docker://registry.example/team/Web_App:1.2',
        args: ['-v'],
        options: {
          user: '5',
          group: '6',
          supplementaryGids: '7,8',
          exec: '/bin/web',
          workingDir: '/srv',
          environment: ['A=own', 'C=x=y'],
          capsRetain: 'CAP_NET_BIND_SERVICE',
          readonlyRootfs: true,
          cpu: '500m',
          memory: '128Mi',
          mount: ['volume=data,target=/data'],
        },
      },
      { image: 'oci:/x', args: [], options: { name: 'side', capsRemove: 'CHOWN,CAP_KILL' } },
    ],
    {
      volume: ['data,kind=host,source=/srv/data,readOnly=true', 'tmp,kind=empty'],
      setEnv: ['A=all', 'B=1'],
      net: 'none',
      hostname: 'h',
      dns: ['10.0.0.1'],
      pullPolicy: 'update',
    },
    'u1',
  )
  expect(pod.metadata).toMatchObject({ name: 'web-app-u1', annotations: { 'kiln.dev/networks': 'none' } })
  expect(pod.spec).toMatchObject({
    restartPolicy: 'Never',
    hostname: 'h',
    dnsConfig: { nameservers: ['10.0.0.1'] },
    securityContext: { supplementalGroups: [7, 8] },
    volumes: [
      { name: 'data', hostPath: { path: '/srv/data' } },
      { name: 'tmp', emptyDir: {} },
    ],
  })
  const [web, side] = pod.spec.containers
  expect(web).toMatchObject({
    name: 'web-app',
    command: ['/bin/web'],
    args: ['-v'],
    workingDir: '/srv',
    imagePullPolicy: 'Always',
    env: [
      { name: 'A', value: 'own' },
      { name: 'B', value: '1' },
      { name: 'C', value: 'x=y' },
    ],
    resources: { limits: { cpu: 0.5, memory: 134217728 } },
    securityContext: {
      runAsUser: 5,
      runAsGroup: 6,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] },
    },
    volumeMounts: [{ name: 'data', mountPath: '/data', readOnly: true }],
  })
  expect(side).toMatchObject({ name: 'side', securityContext: { capabilities: { drop: ['CHOWN', 'KILL'] } } })
})

test('what a manifest of Kubernetes has no field for is in an annotation, variables from weak to strong', () => {
  const pod = podOfApps(
    [
      {
        image: 'oci:/x',
        args: [],
        options: {
          user: 'web',
          group: '/var/mail',
          oomScoreAdjust: '-5',
          seccomp: 'mode=remove,errno=ENOSPC,mkdir,@docker/default-blacklist',
          cpuShares: '512',
          environment: ['D=app'],
          userAnnotation: ['a/b=c'],
          userLabel: ['tier=web'],
        },
      },
      { image: 'oci:/y', args: [], options: {} },
    ],
    {
      inheritEnv: true,
      setEnv: ['C=set', 'D=set'],
      setEnvFile: ['f'],
      port: ['80-tcp:8080', '53-udp:5353'],
      ipc: 'parent',
      volume: ['v,kind=empty,mode=0750,uid=3,gid=4', 'w,kind=empty'],
    },
    'u',
    { environment: { A: 'mine' }, envFiles: ['# a remark\nB=file\n\nC=file\nD=file\n'] },
  )
  expect(pod.metadata.labels).toEqual({ tier: 'web' })
  expect(pod.metadata.annotations['a/b']).toBe('c')
  expect(readPodOptions(pod.metadata.annotations).options).toEqual({
    apps: {
      x: {
        user: 'web',
        group: '/var/mail',
        oomScoreAdjust: -5,
        seccomp: { mode: 'remove', errno: 'ENOSPC', calls: ['mkdir', '@docker/default-blacklist'] },
        env: { A: 'mine' },
      },
      y: { env: { A: 'mine' } },
    },
    volumes: { v: { mode: 0o750, uid: 3, gid: 4 } },
  })
  expect(pod.spec).toMatchObject({ hostIPC: true })
  const [x, y] = pod.spec.containers
  expect(x).toMatchObject({
    env: [
      { name: 'B', value: 'file' },
      { name: 'C', value: 'set' },
      { name: 'D', value: 'app' },
    ],
    ports: [
      { containerPort: 80, hostPort: 8080, protocol: 'TCP' },
      { containerPort: 53, hostPort: 5353, protocol: 'UDP' },
    ],
    resources: { requests: { cpu: 0.5 } },
  })
  expect(y!.ports).toEqual([])
})

test('a prepared pod takes another network, name and servers, and keeps what is not said', () => {
  const pod = podOfApps([{ image: 'oci:/x', args: [], options: {} }], { net: 'none', hostname: 'a' }, 'u')
  const other = withNetwork(pod, { net: 'bridge,lan', dns: ['10.0.0.1'], dnsSearch: ['b.c'] })
  expect(other.metadata.annotations).toEqual({ 'kiln.dev/networks': 'bridge,lan' })
  expect(other.spec).toMatchObject({
    hostname: 'a',
    dnsPolicy: 'None',
    dnsConfig: { nameservers: ['10.0.0.1'], searches: ['b.c'] },
  })
  expect(withNetwork(other, {})).toEqual(other)
  const onHost = withNetwork(other, { net: 'host', hostname: 'd' })
  expect(onHost.metadata.annotations).toEqual({})
  expect(onHost.spec).toMatchObject({ hostNetwork: true, hostname: 'd' })
  expect(() => withNetwork(pod, { net: 'no such' })).toThrow(/no name of a network/)
})

test('what cannot be meant is refused by the flag’s name', () => {
  const of =
    (options: object, whole: object = {}) =>
    () =>
      podOfApps([{ image: 'oci:/x', args: [], options }], whole, 'u')
  expect(of({ user: 'a b' })).toThrow(/apps.x.user: is no number, name/)
  expect(of({ supplementaryGids: '1,web' })).toThrow(/--supplementary-gids takes a number/)
  expect(of({ seccomp: 'mkdir' })).toThrow(/--seccomp takes mode=/)
  expect(of({ seccomp: 'mode=remove' })).toThrow(/--seccomp takes mode=/)
  expect(of({ seccomp: 'mode=remove,what=1,mkdir' })).toThrow(/--seccomp has no what/)
  expect(of({ oomScoreAdjust: '1001' })).toThrow(/-1000 to 1000/)
  expect(of({ cpuShares: '1' })).toThrow(/--cpu-shares/)
  expect(of({}, { port: ['http:80'] })).toThrow(/--port takes/)
  expect(of({}, { ipc: 'host' })).toThrow(/--ipc is/)
  expect(of({}, { volume: ['a,kind=empty,mode=9'] })).toThrow(/octal/)
  expect(of({}, { volume: ['a,kind=host,source=/a,uid=9'] })).toThrow(/kind is host/)
  expect(of({ capsRetain: 'KILL', capsRemove: 'KILL' })).toThrow(/exclude each other/)
  expect(of({ environment: ['A'] })).toThrow(/name=value/)
  expect(of({}, { volume: ['a,kind=host'] })).toThrow(/--volume a,kind=host/)
  expect(of({ mount: ['volume=a,target=/a,mode=1'] })).toThrow(/--mount has no mode/)
  expect(of({ mount: ['volume=missing,target=/a'] })).toThrow(/names no volume/)
  expect(() => readApp(['--bogus', 'x'])).toThrow(/after ---/)
})
