import { mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseIgnition } from '@kiln/schemas'
import { afterEach, expect, test } from 'vitest'
import { startBootServer } from './boot-server.ts'
import {
  type Answer,
  decode,
  fileOf,
  json,
  key,
  log,
  macOf,
  place,
  report,
  running,
  start,
  stopAll,
  text,
  tls,
} from './server-fixture.ts'
import { BootSettings } from './settings.ts'

afterEach(stopAll)

test('three machines are assigned on sight, wait for each other and get one initial cluster', async () => {
  const at = place(3)
  const server = await start(at)
  const script = await text(`${server.url}/ipxe?mac=${macOf(1)}&uuid=4B494C4E`)
  expect(script).toContain(`/assets/releases/0.1.0/vmlinuz initrd=initrd console=ttyS0`)
  expect(script).toContain('kiln.machine=node1')
  const waiting = await fetch(`${server.url}/ignition?mac=${macOf(1)}`)
  expect(waiting.status).toBe(503)
  expect(waiting.headers.get('retry-after')).toBe('2')
  expect(await waiting.json()).toMatchObject({ error: { code: 'CLUSTER_WAITING' } })
  expect((await json(`${server.url}/v1/machines/node1`)).message).toMatch(/1 of 3/)
  await text(`${server.url}/ipxe?mac=${macOf(2)}`)
  await text(`${server.url}/ipxe?mac=${macOf(3)}`)

  const config = await json(`${server.url}/ignition?mac=${macOf(1)}`)
  expect(decode(config.ignition.config.merge[0].source)).toBe('{\n  "ignition": { "version": "3.4.0" }\n}\n')
  expect(JSON.parse(fileOf(config, '/etc/kiln/machine.json') ?? '')).toMatchObject({
    id: 'node1',
    address: '10.77.0.11',
    role: 'store',
    bootUrl: server.url,
    bootTlsUrl: server.tlsUrl,
    storeEndpoints: ['https://10.77.0.11:2379', 'https://10.77.0.12:2379', 'https://10.77.0.13:2379'],
  })
  expect(parseIgnition(JSON.stringify(config)).problems).toEqual([])
  const kv = fileOf(config, '/etc/kiln/kv.env')
  expect(kv).toContain(
    'ETCD_INITIAL_CLUSTER=node1=https://10.77.0.11:2380,node2=https://10.77.0.12:2380,node3=https://10.77.0.13:2380\n',
  )
  expect(kv).toContain('ETCD_INITIAL_CLUSTER_STATE=new\n')
  expect(fileOf(config, '/etc/systemd/network/20-kiln-cluster.network')).toContain(
    'MACAddress=52:54:00:4b:01:01',
  )
  expect(fileOf(config, '/etc/hostname')).toBe('node1\n')
  expect(fileOf(config, '/etc/kiln/release-keys/test.pub')).toBe(key.publicKey)
  const second = await json(`${server.url}/ignition?mac=${macOf(2)}`)
  expect(fileOf(second, '/etc/systemd/network/20-kiln-cluster.network')).toContain('Name=eth1')
})

test('an installed machine is sent to its disk until an operator allows one reinstall', async () => {
  const at = place(1)
  const server = await start(at)
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  expect((await report(server, 'node1', { stage: 'files', status: 'done' })).status).toBe(204)
  expect(await text(`${server.url}/ipxe?mac=${macOf(1)}`)).toContain('exit 1')
  const config = await json(`${server.url}/ignition?mac=${macOf(1)}`)
  expect(fileOf(config, '/etc/kiln/enrol.json')).toBeUndefined()
  const allowed = await tls(server, at, {
    method: 'POST',
    path: '/v1/machines/node1/reinstall',
    cert: 'admin',
  })
  expect(allowed).toMatchObject({ status: 200, body: { reinstall: true } })
  expect(await text(`${server.url}/ipxe?mac=${macOf(1)}`)).toContain('kiln.reinstall=1')
})

test('an operator withdraws a reinstall until the machine has begun it', async () => {
  const at = place(1)
  const server = await start(at)
  const operate = (method: string, body?: object) =>
    tls(server, at, {
      method,
      path: '/v1/machines/node1/reinstall',
      cert: 'admin',
      ...(body ? { body } : {}),
    })
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  const begun = { status: 409, body: { error: { code: 'REINSTALL_BEGUN' } } }
  expect(await operate('DELETE')).toMatchObject(begun)
  await report(server, 'node1', { stage: 'files', status: 'done' })
  expect(await operate('DELETE')).toMatchObject({ status: 200, body: { state: 'installed' } })
  await operate('POST', { keep: ['DATA'] })
  const { status, body } = await operate('DELETE')
  expect([status, body.reinstall, body.keep]).toEqual([200, undefined, undefined])
  expect(await text(`${server.url}/ipxe?mac=${macOf(1)}`)).toContain('exit 1')
  await operate('POST')
  expect(await text(`${server.url}/ipxe?mac=${macOf(1)}`)).toContain('kiln.reinstall=1')
  expect(await operate('DELETE')).toMatchObject(begun)
  expect(await json(`${server.url}/v1/machines/node1`)).toMatchObject({
    state: 'installing',
    reinstall: true,
  })
})

test('everything survives a restart: machines, cluster, token, CA', async () => {
  const at = place(1)
  const first = await start(at)
  await text(`${first.url}/ipxe?mac=${macOf(1)}`)
  const before = await json(`${first.url}/ignition?mac=${macOf(1)}`)
  const status = await json(`${first.url}/v1/status`)
  await running.pop()?.stop()
  const second = await start(at)
  const after = await json(`${second.url}/ignition?mac=${macOf(1)}`)
  expect(fileOf(after, '/etc/kiln/kv.env')).toBe(fileOf(before, '/etc/kiln/kv.env'))
  const tokenOf = (config: object) => JSON.parse(fileOf(config, '/etc/kiln/enrol.json') ?? '').token
  expect(tokenOf(after)).toBe(tokenOf(before))
  expect((await json(`${second.url}/v1/status`)).caHash).toBe(status.caHash)
  expect((await json(`${second.url}/v1/machines/node1`)).installs).toBe(1)
  for (const name of ['ca.key', 'boot.key', 'admin.key']) {
    expect(statSync(join(at.data, 'pki', name)).mode & 0o777).toBe(0o600)
  }
})

test('assets answer HEAD and ranges, and nothing outside of their folder', async () => {
  const at = place(1)
  const server = await start(at)
  const url = `${server.url}/assets/releases/0.1.0/usr.img`
  const head = await fetch(url, { method: 'HEAD' })
  expect(head.headers.get('content-length')).toBe('16')
  const range = await fetch(url, { headers: { range: 'bytes=8-' } })
  expect([range.status, range.headers.get('content-range'), await range.text()]).toEqual([
    206,
    'bytes 8-15/16',
    'of 0.1.0',
  ])
  expect((await fetch(url, { headers: { range: 'bytes=16-' } })).status).toBe(416)
  expect((await fetch(`${server.url}/assets/..%2fpki/ca.key`)).status).toBeGreaterThanOrEqual(400)
  expect((await fetch(`${server.url}/assets/none`)).status).toBe(404)
})

test('a matchbox data directory works as it is, for machines that are not Kiln machines', async () => {
  const at = place(1)
  writeFileSync(
    join(at.data, 'groups/default.json'),
    '{"id":"default","profile":"old","metadata":{"region":"west","list":[1],"deep":{"a":1}},"selector":{"os":"x"}}',
  )
  writeFileSync(
    join(at.data, 'profiles/old.json'),
    '{"id":"old","ignition_id":"old.ign","generic_id":"motd","boot":{"kernel":"/assets/k","initrd":["/assets/i"],"args":["a=1"]}}',
  )
  mkdirSync(join(at.data, 'generic'), { recursive: true })
  writeFileSync(join(at.data, 'ignition/old.ign'), '{ "ignition": { "version": "3.3.0" } }')
  writeFileSync(join(at.data, 'generic/motd'), 'hello\n')
  const server = await start(at)
  const query = `?os=x&mac=${macOf(4)}`
  expect(await text(`${server.url}/ipxe${query}`)).toBe(
    '#!ipxe\nkernel /assets/k a=1\ninitrd /assets/i\nboot\n',
  )
  expect(await text(`${server.url}/ignition${query}`)).toBe('{"ignition":{"version":"3.3.0"}}')
  expect(await text(`${server.url}/generic${query}`)).toBe('hello\n')
  expect(await text(`${server.url}/metadata?os=x`)).toBe('DEEP_A=1\nOS=x\nREGION=west\nREQUEST_QUERY_OS=x\n')
  expect((await fetch(`${server.url}/ignition?os=y`)).status).toBe(404)
  expect(await text(`${server.url}/`)).toBe('kiln-boot\n')
})

test('templates are refused by name, in the answer and in the status', async () => {
  const at = place(1)
  writeFileSync(join(at.data, 'profiles/kiln.json'), '{"id":"kiln","ignition_id":"kiln.yaml.tmpl"}')
  writeFileSync(join(at.data, 'ignition/kiln.yaml.tmpl'), 'variant: fcos\n')
  writeFileSync(join(at.data, 'groups/broken.json'), '{')
  const server = await start(at)
  const answer = await fetch(`${server.url}/ignition?mac=${macOf(1)}`)
  expect([answer.status, await answer.json()]).toMatchObject([
    422,
    { error: { code: 'TEMPLATE_UNSUPPORTED' } },
  ])
  const { problems } = await json(`${server.url}/v1/status`)
  expect(problems.map((problem: Answer) => problem.file)).toEqual([
    'groups/broken.json',
    'ignition/kiln.yaml.tmpl',
  ])
})

test('a Butane config is translated with files of its own folder, and refused with the place of its error', async () => {
  const at = place(1)
  writeFileSync(join(at.data, 'groups/default.json'), '{"id":"default","profile":"bu","selector":{"os":"x"}}')
  writeFileSync(join(at.data, 'profiles/bu.json'), '{"id":"bu","ignition_id":"node.bu"}')
  writeFileSync(join(at.data, 'secret'), 'x')
  mkdirSync(join(at.data, 'ignition/files'), { recursive: true })
  writeFileSync(join(at.data, 'ignition/files/motd'), 'hi\n')
  const config = (local: string): string =>
    `variant: fcos\nversion: 1.4.0\nstorage:\n  files:\n    - path: /etc/motd\n      contents: {local: ${local}}\n`
  writeFileSync(join(at.data, 'ignition/node.bu'), config('files/motd'))
  const server = await start(at)
  const url = `${server.url}/ignition?os=x&mac=${macOf(4)}`
  expect(JSON.parse(await text(url))).toEqual({
    ignition: { version: '3.3.0' },
    storage: { files: [{ path: '/etc/motd', contents: { source: 'data:,hi%0A', compression: '' } }] },
  })
  writeFileSync(join(at.data, 'ignition/files/motd'), 'hello\n')
  expect(JSON.parse(await text(url)).storage.files[0].contents.source).toBe('data:,hello%0A')
  symlinkSync('../../secret', join(at.data, 'ignition/files/out'))
  writeFileSync(join(at.data, 'ignition/node.bu'), config('files/out'))
  await expect
    .poll(async () => {
      const answer = await fetch(url)
      return [answer.status, await answer.json()]
    })
    .toMatchObject([
      422,
      { error: { code: 'BUTANE_INVALID', message: expect.stringMatching(/line 6 col 25: .* leads out of/) } },
    ])
})

test('a mistake in a config is named with its place before any machine asks for it', async () => {
  const at = place(1)
  writeFileSync(
    join(at.data, 'ignition/kiln.ign'),
    '{\n  "ignition": { "version": "3.4.0" },\n  "storage": { "files": [{ "path": "relative" }] }\n}',
  )
  writeFileSync(join(at.data, 'ignition/other.ign'), '{ "ignition": { "version": "2.2.0" } }')
  const { problems } = await json(`${(await start(at)).url}/v1/status`)
  expect(problems.map((problem: Answer) => problem.file)).toEqual(['ignition/kiln.ign'])
  expect(problems[0].message).toMatch(/line 3 col \d+/)
})

test('an edit by hand shows within a second', async () => {
  const at = place(1)
  const server = await start(at)
  writeFileSync(join(at.data, 'groups/new.json'), '{"id":"new","profile":"kiln","selector":{"os":"new"}}')
  await expect
    .poll(async () => (await json(`${server.url}/v1/explain?os=new`))[0], { timeout: 3000, interval: 50 })
    .toEqual({ group: 'new', matches: true, because: 'all 1 selectors match' })
})

test('a data directory that cannot be one is a fault with its name', async () => {
  const settings = BootSettings.parse({
    address: '127.0.0.1:0',
    tlsAddress: '127.0.0.1:0',
    dataPath: import.meta.filename,
    assetsPath: '',
  })
  await expect(startBootServer(settings, log)).rejects.toMatchObject({
    code: 'DATA_PATH_UNUSABLE',
  })
})

test('a taken port is a fault with its name, and nothing stays behind', async () => {
  const at = place(1)
  const server = await start(at)
  const settings = BootSettings.parse({
    address: server.url.replace('http://', ''),
    tlsAddress: '127.0.0.1:0',
    dataPath: at.data,
    assetsPath: '',
  })
  await expect(startBootServer(settings, log)).rejects.toMatchObject({ code: 'PORT_TAKEN' })
})
