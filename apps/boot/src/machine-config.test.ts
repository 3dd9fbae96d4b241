import { KilnGroup, kvEnvironment } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { machineConfig } from './machine-config.ts'

const facts = {
  formatVersion: 1 as const,
  ...{ id: 'node1', name: 'node1', group: 'default', role: 'store' as const, address: '10.77.0.11' },
  ...{ bootUrl: 'http://10.0.2.2:8080', bootTlsUrl: 'https://10.0.2.2:8443', storeEndpoints: [] },
}
const input = {
  ...{
    facts,
    mac: '52:54:00:4b:00:01',
    profileConfig: undefined,
    ticket: undefined,
    kvEnvironment: undefined,
  },
  releaseKeys: new Map<string, string>(),
}
type Config = { storage: { files: { path: string; mode: number; contents: { source: string } }[] } }
const filesOf = (config: object): Map<string, string> =>
  new Map(
    (config as Config).storage.files.map(({ path, contents }) => [
      path,
      Buffer.from(contents.source.slice(contents.source.indexOf(',') + 1), 'base64').toString(),
    ]),
  )

test('a machine with one interface has the cluster address on the one it boots from', () => {
  const group = KilnGroup.parse({ clusterInterface: 'boot', prefixLength: 16 })
  const files = filesOf(machineConfig({ ...input, group }))
  expect(files.get('/etc/systemd/network/10-kiln-boot.network')).toBe(
    '[Match]\nMACAddress=52:54:00:4b:00:01\n\n[Network]\nDHCP=ipv4\nAddress=10.77.0.11/16\nIPv6AcceptRA=no\n' +
      'LinkLocalAddressing=no\n\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n',
  )
  expect(files.has('/etc/systemd/network/20-kiln-cluster.network')).toBe(false)
})

test('the ticket is readable by root only and absent from what an installed machine gets', () => {
  const ticket = { url: 'https://10.0.2.2:8443/v1/enrol', token: 't'.repeat(43), caHash: 'a'.repeat(64) }
  const group = KilnGroup.parse({})
  const config = machineConfig({ ...input, group, ticket }) as Config
  expect(config.storage.files.find((file) => file.path === '/etc/kiln/enrol.json')?.mode).toBe(0o600)
  expect(filesOf(machineConfig({ ...input, group })).has('/etc/kiln/enrol.json')).toBe(false)
})

test('the environment of a store member is complete', async () => {
  const members = [1, 2, 3].map((n) => ({ name: `node${n}`, address: `10.77.0.1${n}` }))
  const text = kvEnvironment({ name: 'node1', address: '10.77.0.11', members, state: 'new', token: 'abc' })
  await expect(text).toMatchFileSnapshot('../testdata/kv.env')
})
