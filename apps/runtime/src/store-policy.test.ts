import { parsePod } from '@kiln/schemas'
import { assert } from '@kiln/service'
import { expect, test } from 'vitest'
import { whyNotFromStore } from './store-policy.ts'

/** What is said of a pod of the store with these fields. */
function verdict(spec: object, container: object = {}): string | undefined {
  const { pod, problems } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', labels: { app: 'p' } },
    spec: { containers: [{ name: 'web', image: 'oci:/x', ...container }], ...spec },
  })
  assert(pod, JSON.stringify(problems))
  return whyNotFromStore(pod)
}

const seccomp = (type: string, more: object = {}) => ({
  securityContext: { seccompProfile: { type, ...more } },
})

test('a pod of the store may have what stays within the pod', () => {
  expect(verdict({})).toBeUndefined()
  const full = {
    restartPolicy: 'Never',
    initContainers: [{ name: 'first', image: 'oci:/x', ...seccomp('RuntimeDefault') }],
    volumes: [{ name: 'v', emptyDir: { medium: 'Memory' } }],
    securityContext: { fsGroup: 7, sysctls: [{ name: 'net.ipv4.tcp_fin_timeout', value: '9' }] },
    dnsPolicy: 'ClusterFirst',
    hostAliases: [{ ip: '10.0.0.1', hostnames: ['db'] }],
  }
  const container = {
    ports: [{ containerPort: 80, hostPort: 80 }],
    resources: { limits: { memory: '64Mi' } },
    volumeMounts: [{ name: 'v', mountPath: '/v', subPath: 'a' }],
    readinessProbe: { tcpSocket: { port: 80 } },
    terminationMessagePath: '/last',
    ...seccomp('Unconfined'),
  }
  expect(verdict(full, container)).toBeUndefined()
})

test('options by annotation, which may loosen more than any field, are refused', () => {
  const { pod } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'a', annotations: { 'kiln.dev/options': '{"apps":{"x":{"oomScoreAdjust":-1000}}}' } },
    spec: { containers: [{ name: 'x', image: 'oci:/x' }] },
  })
  expect(whyNotFromStore(pod!)).toMatch(/annotation kiln.dev\/options/)
})

test('what reaches into the machine is refused with its place', () => {
  const volume = { name: 'v', hostPath: { path: '/etc' } }
  const at = (path: string) => `pods from the store may not have ${path} like this`
  expect(verdict({ hostNetwork: true })).toBe(at('spec.hostNetwork'))
  expect(verdict({ hostPID: true })).toBe(at('spec.hostPID'))
  expect(verdict({ hostIPC: true })).toBe(at('spec.hostIPC'))
  expect(verdict({ volumes: [{ name: 'w', emptyDir: {} }, volume] })).toBe(at('spec.volumes[1].hostPath'))
  expect(verdict({ volumes: [{ name: 'v', configMap: { name: 'c' } }] })).toBe(
    at('spec.volumes[0].configMap'),
  )
  const local = seccomp('Localhost', { localhostProfile: 'x.json' })
  expect(verdict(local)).toBe(at('spec.securityContext.seccompProfile.type'))
  expect(verdict({ initContainers: [{ name: 'i', image: 'oci:/x', ...local }] })).toBe(
    at('spec.initContainers[0].securityContext.seccompProfile.type'),
  )
  const mount = { name: 'v', mountPath: '/v', mountPropagation: 'HostToContainer' }
  expect(verdict({ volumes: [{ name: 'v', emptyDir: {} }] }, { volumeMounts: [mount] })).toBe(
    at('spec.containers[0].volumeMounts[0].mountPropagation'),
  )
})
