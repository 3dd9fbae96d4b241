import { expect, test } from 'vitest'
import { parsePod } from './pod.ts'
import { parseQuantity } from './quantity.ts'

const pod = (spec: object, metadata: object = {}): unknown => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'hello', ...metadata },
  spec: { containers: [{ name: 'web', image: 'boot://pods/hello.tar' }], ...spec },
})
const container = (fields: object): unknown =>
  pod({ containers: [{ name: 'web', image: 'oci:/x', ...fields }] })
const problems = (document: unknown): string[] =>
  parsePod(document).problems.map((problem) => `${problem.path} ${problem.message}`)

test('a pod has the defaults of Kubernetes', () => {
  const { pod: parsed } = parsePod(pod({}))
  expect(parsed?.spec).toMatchObject({
    restartPolicy: 'Always',
    terminationGracePeriodSeconds: 30,
    hostNetwork: false,
  })
  expect(parsed?.spec.containers[0]).toMatchObject({ imagePullPolicy: 'IfNotPresent', env: [], ports: [] })
})

test('what is not supported is refused by name and path, all at once', () => {
  const document = pod({
    shareProcessNamespace: true,
    runtimeClassName: 'kata',
    containers: [
      { name: 'web', image: 'oci:/x', stdin: true, ports: [{ containerPort: 80, hostIP: '1.2.3.4' }] },
    ],
  })
  expect(problems(document)).toEqual([
    'spec.containers[0].ports[0].hostIP is not supported by kiln-runtime',
    'spec.containers[0].stdin is not supported by kiln-runtime',
    'spec.shareProcessNamespace must be false: containers of a pod do not see each other’s processes',
    'spec.runtimeClassName is not supported by kiln-runtime',
  ])
})

test('probes and hooks have the defaults of Kubernetes, do one thing, and name ports that exist', () => {
  const { pod: parsed } = parsePod(
    container({
      ports: [{ name: 'http', containerPort: 80 }],
      readinessProbe: { httpGet: { port: 'http' } },
      lifecycle: { preStop: { sleep: { seconds: 5 } } },
    }),
  )
  expect(parsed?.spec.containers[0]?.readinessProbe).toEqual({
    httpGet: { path: '/', port: 'http', scheme: 'HTTP', httpHeaders: [] },
    initialDelaySeconds: 0,
    periodSeconds: 10,
    timeoutSeconds: 1,
    successThreshold: 1,
    failureThreshold: 3,
  })
  const exec = { command: ['true'] }
  const header = { name: 'x', value: 'a\r\nb: c' }
  expect(
    problems(
      container({
        startupProbe: { exec, successThreshold: 2 },
        livenessProbe: { tcpSocket: { port: 'nope' } },
        readinessProbe: { exec, grpc: { port: 1 } },
        lifecycle: { preStop: { httpGet: { port: 80, httpHeaders: [header] } } },
      }),
    ),
  ).toEqual([
    'spec.containers[0].readinessProbe needs exactly one of exec, httpGet, tcpSocket, grpc',
    'spec.containers[0].lifecycle.preStop.httpGet.httpHeaders[0].value must be the value of a header',
    'spec.containers[0].livenessProbe.tcpSocket.port names no port of the container',
    'spec.containers[0].startupProbe.successThreshold must be 1',
  ])
})

test('containers that run before the others have no probes, and no name twice', () => {
  const first = { name: 'first', image: 'oci:/x' }
  expect(parsePod(pod({ initContainers: [first] })).pod?.spec.initContainers[0]?.name).toBe('first')
  const probed = { ...first, name: 'web', livenessProbe: { exec: { command: ['true'] } } }
  expect(problems(pod({ initContainers: [probed] }))).toEqual([
    'spec.initContainers[0].livenessProbe is not for a container that runs before the others',
    'spec.containers[0].name is used by two containers',
  ])
})

test('limits are numbers, however they are written', () => {
  const { pod: parsed } = parsePod(
    container({ resources: { limits: { cpu: '500m', memory: '64Mi', 'kiln.dev/pids': 32 } } }),
  )
  expect(parsed?.spec.containers[0]?.resources.limits).toEqual({
    cpu: 0.5,
    memory: 67108864,
    'kiln.dev/pids': 32,
  })
  expect(problems(container({ resources: { limits: { memory: '12' } } }))).toEqual([
    'spec.containers[0].resources.limits.memory must be a quantity of at least 64Ki',
  ])
})

test('quantities are read as Kubernetes does', () => {
  expect(['1', '0.5', '100m', '2k', '1Gi', '1e3', '.5', '2.'].map(parseQuantity)).toEqual([
    1, 0.5, 0.1, 2000, 1073741824, 1000, 0.5, 2,
  ])
  expect(['', '-1', '1x', 'm', '1 Mi', '1e', '0x10'].map(parseQuantity)).toEqual(Array(7).fill(undefined))
})

test('references within the pod must hold', () => {
  expect(problems(container({ volumeMounts: [{ name: 'data', mountPath: '/data' }] }))).toEqual([
    'spec.containers[0].volumeMounts[0].name names no volume',
  ])
  const twice = pod({ containers: [1, 2].map(() => ({ name: 'web', image: 'oci:/x' })) })
  expect(problems(twice)).toEqual(['spec.containers[1].name is used by two containers'])
  expect(problems(pod({ volumes: [{ name: 'data' }] }))).toEqual([
    'spec.volumes[0] needs exactly one of emptyDir, hostPath, configMap',
  ])
})

test('privileged containers and paths that climb are refused', () => {
  expect(problems(container({ securityContext: { privileged: true } }))[0]).toMatch(
    /privileged .*not supported/,
  )
  expect(problems(pod({ volumes: [{ name: 'x', hostPath: { path: '/var/../etc' } }] }))[0]).toMatch(/\.\./)
})

test('security, volumes and names of a pod are checked by their paths', () => {
  const sysctls = [{ name: 'net.ipv4.tcp_fin_timeout', value: '9' }]
  expect(problems(pod({ hostNetwork: true, securityContext: { sysctls } }))).toEqual([
    'spec.securityContext.sysctls[0].name would change the machine with hostNetwork',
  ])
  expect(problems(pod({ securityContext: { sysctls: [{ name: 'kernel.panic', value: '1' }] } }))[0]).toMatch(
    /sysctls\[0\]\.name is no kernel parameter that a pod may set: kernel\.panic/,
  )
  for (const localhostProfile of [undefined, '../x', '/x', 'a/../../x', '.x'])
    expect(
      problems(pod({ securityContext: { seccompProfile: { type: 'Localhost', localhostProfile } } }))[0],
    ).toMatch(/^spec\.securityContext\.seccompProfile\.localhostProfile/)
  const volumes = [{ name: 'v', emptyDir: {} }]
  for (const subPath of ['../x', '/x', 'a//b', './a', ''])
    expect(
      problems(
        pod({
          volumes,
          containers: [
            { name: 'web', image: 'oci:/x', volumeMounts: [{ name: 'v', mountPath: '/v', subPath }] },
          ],
        }),
      )[0],
    ).toMatch(/^spec\.containers\[0\]\.volumeMounts\[0\]\.subPath/)
  expect(problems(pod({ dnsPolicy: 'None' }))).toEqual([
    'spec.dnsConfig.nameservers must name a server with dnsPolicy None',
  ])
  expect(problems(pod({ hostAliases: [{ ip: '10.0.0.1', hostnames: ['a b'] }] }))[0]).toMatch(
    /hostnames\[0\] must be/,
  )
})
