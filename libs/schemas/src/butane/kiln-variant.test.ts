import { gunzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { decodeDataUrl } from '../ignition-data-url.ts'
import { parseIgnition } from '../ignition-parse.ts'
import { MachineFacts } from '../machines.ts'
import { parsePod } from '../pod.ts'
import { describeButaneProblem } from './report.ts'
import { timeZoneFile } from './time-zone.ts'
import { translateButane } from './translate.ts'

const documents = { parseIgnition, parsePod }
const header = 'variant: kiln\nversion: 1.0.0\n'
const machine = `machine: {name: n1, address: 10.0.0.11}
boot_server: {address: "http://10.0.0.1:8080", tls_address: "https://10.0.0.1:8443"}
`

function filesOf(text: string): Map<string, Buffer> {
  const result = translateButane(header + text, { documents })
  expect(result.problems.map(describeButaneProblem)).toEqual([])
  if (!result.ok) throw new Error(result.failure)
  return new Map(
    (result.config.storage?.files ?? []).map(({ path, contents }) => {
      const bytes = Buffer.from(decodeDataUrl(contents!.source!)!)
      return [path, contents!.compression === 'gzip' ? gunzipSync(bytes) : bytes]
    }),
  )
}

const linesOf = (text: string): string[] =>
  translateButane(header + text, { documents }).problems.map(describeButaneProblem)

test('a member of the store gets the facts and the environment that kiln-boot would give it', () => {
  const files = filesOf(`${machine}update: {group: edge, reboot_windows: ["Sat 02:00+120"]}
store: {members: {n1: 10.0.0.11, n2: 10.0.0.12, n3: 10.0.0.13}, token: t1}
`)
  const facts = MachineFacts.parse(JSON.parse(String(files.get('/etc/kiln/machine.json'))))
  expect(facts).toMatchObject({ id: 'n1', group: 'edge', role: 'store', bootTlsUrl: 'https://10.0.0.1:8443' })
  expect(facts.storeEndpoints).toHaveLength(3)
  const environment = String(files.get('/etc/kiln/kv.env'))
  expect(environment).toContain('ETCD_NAME=n1\n')
  expect(environment).toContain('ETCD_INITIAL_CLUSTER_STATE=new\nETCD_INITIAL_CLUSTER_TOKEN=t1\n')
  expect(String(files.get('/etc/kiln/update.toml'))).toBe('rebootWindows = ["Sat 02:00+120"]\n')
  expect(String(files.get('/etc/hostname'))).toBe('n1\n')
})

test('a machine that is no member has no environment of the store', () => {
  const files = filesOf(`${machine}store: {members: {n2: 10.0.0.12}, token: t1}\n`)
  expect([...files.keys()]).toEqual(['/etc/kiln/machine.json', '/etc/hostname'])
})

test('a pod is a few fields or a whole manifest, and is checked at its own place', () => {
  const files = filesOf(`pods:
  - {name: web, image: "docker.io/library/nginx:1", environment: {A: "1"}, ports: [80]}
  - manifest: {apiVersion: v1, kind: Pod, metadata: {name: raw}, spec: {containers: [{name: c, image: i}]}}
`)
  const web = JSON.parse(String(files.get('/etc/kiln/pods.d/web.json')))
  expect(web.spec.containers[0]).toEqual({
    name: 'web',
    image: 'docker.io/library/nginx:1',
    env: [{ name: 'A', value: '1' }],
    ports: [{ containerPort: 80, hostPort: 80 }],
  })
  expect(files.has('/etc/kiln/pods.d/raw.json')).toBe(true)
  expect(
    linesOf(`pods:
  - manifest:
      apiVersion: v1
      kind: Pod
      metadata: {name: raw}
      spec:
        containers:
          - {name: c, image: i, stdin: true}
`),
  ).toEqual([
    'error at $.pods.0.manifest.spec.containers.0.stdin, line 10 col 40: is not supported by kiln-runtime',
  ])
})

test('what the daemons could not use is refused where it was written', () => {
  expect(linesOf('update: {group: edge}\n')).toEqual([
    expect.stringMatching(/^error at \$\.update\.group, line 3 col 17: needs the sections machine/),
  ])
  expect(linesOf('update: {reboot_windows: ["at night"]}\ntime_zone: Mars/Base\n')).toEqual([
    expect.stringMatching(/^error at \$\.update\.reboot_windows\.0, line 3 col 27: /),
    expect.stringMatching(/^error at \$\.time_zone, line 4 col 12: /),
  ])
  expect(linesOf(`${machine}storage: {files: [{path: /etc/hostname}]}\n`)).toEqual([
    expect.stringMatching(/^error at \$\.machine\.name, line 3 col 17: \/etc\/hostname is already written/),
  ])
})

test('the rules of a time zone are those of the database', () => {
  const bytes = Buffer.from(timeZoneFile('Europe/Prague'))
  expect(bytes.subarray(0, 4).toString()).toBe('TZif')
  const count = bytes.readUInt32BE(32)
  const times = Array.from({ length: count }, (_, index) => bytes.readInt32BE(44 + 4 * index))
  // 2024-03-31 and 2024-10-27, both at 01:00 UTC.
  expect(times).toContain(Date.UTC(2024, 2, 31, 1) / 1000)
  expect(times).toContain(Date.UTC(2024, 9, 27, 1) / 1000)
  expect(bytes.subarray(-8).toString()).toBe('+01\0+02\0')
  expect(Buffer.from(timeZoneFile('Asia/Kolkata')).readUInt32BE(32)).toBe(0)
})
