import { expect, test } from 'vitest'
import { podOfApps, readApp, splitApps } from './app-options.ts'

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

test('what cannot be meant is refused by the flag’s name', () => {
  const of =
    (options: object, whole: object = {}) =>
    () =>
      podOfApps([{ image: 'oci:/x', args: [], options }], whole, 'u')
  expect(of({ user: 'web' })).toThrow(/--user takes a number/)
  expect(of({ capsRetain: 'KILL', capsRemove: 'KILL' })).toThrow(/exclude each other/)
  expect(of({ environment: ['A'] })).toThrow(/name=value/)
  expect(of({}, { volume: ['a,kind=host'] })).toThrow(/--volume a,kind=host/)
  expect(of({ mount: ['volume=a,target=/a,mode=1'] })).toThrow(/--mount has no mode/)
  expect(of({ mount: ['volume=missing,target=/a'] })).toThrow(/names no volume/)
  expect(() => readApp(['--bogus', 'x'])).toThrow(/after ---/)
})
