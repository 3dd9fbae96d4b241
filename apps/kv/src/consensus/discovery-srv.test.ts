import { expect, test } from 'vitest'
import { discoverBySrv, type NameService } from './discovery-srv.ts'

const dns = (
  records: Record<string, { name: string; port: number }[]>,
  hosts: Record<string, string[]> = {},
): NameService => ({
  srv: async (name) => records[name] ?? Promise.reject(new Error(`queryESERVFAIL ${name}`)),
  addresses: async (host) => hosts[host] ?? [],
})
const options = {
  domain: 'example.com',
  suffix: '',
  name: 'b',
  advertisePeerUrls: ['http://b.example.com:2380'],
  token: 't',
}
const records = {
  '_etcd-server._tcp.example.com': [
    { name: 'a.example.com.', port: 2380 },
    { name: 'b.example.com.', port: 2380 },
  ],
}

test('the first members are those of the SRV records, ourselves by our name', async () => {
  const members = await discoverBySrv(options, dns(records))
  expect(members.map(({ name, peerUrls }) => [name, peerUrls]).sort()).toEqual([
    ['0', ['http://a.example.com:2380']],
    ['b', ['http://b.example.com:2380']],
  ])
})

test('all members derive the same ids, whatever they call each other', async () => {
  const own = await discoverBySrv(options, dns(records))
  const other = await discoverBySrv(
    { ...options, name: 'a', advertisePeerUrls: ['http://a.example.com:2380'] },
    dns(records),
  )
  expect(own.map(({ id }) => id).sort()).toEqual(other.map(({ id }) => id).sort())
})

test('an address of ours counts as ourselves, with the scheme of the record', async () => {
  const secure = { '_etcd-server-ssl-blue._tcp.example.com': [{ name: 'b.example.com', port: 2380 }] }
  const hosts = { 'b.example.com': ['10.0.0.2'], '10.0.0.2': ['10.0.0.2'] }
  const asked = { ...options, suffix: 'blue', advertisePeerUrls: ['https://10.0.0.2:2380'] }
  const members = await discoverBySrv(asked, dns(secure, hosts))
  expect(members).toMatchObject([{ name: 'b', peerUrls: ['https://10.0.0.2:2380'] }])
  await expect(
    discoverBySrv({ ...asked, advertisePeerUrls: ['http://10.0.0.2:2380'] }, dns(secure, hosts)),
  ).rejects.toMatchObject({ code: 'STORE_DISCOVERY_FAILED' })
})

test('a domain without records is a fault that says what was looked for', async () => {
  await expect(discoverBySrv(options, dns({}))).rejects.toMatchObject({
    code: 'STORE_DISCOVERY_FAILED',
    message: expect.stringContaining('example.com'),
  })
})
