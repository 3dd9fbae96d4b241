import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog, Fault } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { podResolver, pointResolver, type ResolverFiles, resolverDropIn } from './resolver.ts'

const log = createLog('test', 'silent')
const folders: string[] = []
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true })
})

async function setUp(): Promise<{ folder: string; files: ResolverFiles }> {
  const folder = await mkdtemp(join(tmpdir(), 'resolver-'))
  folders.push(folder)
  const files = { resolved: join(folder, 'resolve'), fallback: join(folder, 'etc'), udp: join(folder, 'udp') }
  await mkdir(files.resolved)
  await writeFile(join(files.resolved, 'resolv.conf'), 'nameserver 10.0.2.3\nsearch lab.example\n')
  await writeFile(join(files.resolved, 'stub-resolv.conf'), 'nameserver 127.0.0.53\n')
  await writeFile(files.fallback, 'nameserver 192.0.2.1\n')
  return { folder, files }
}

test('the drop-in names the zone, the server and the listener for pods', () => {
  const at = { address: '127.0.0.88', port: 53, podGateways: ['10.88.11.1', '10.89.11.1'] }
  expect(resolverDropIn(at).split('\n').slice(1)).toEqual([
    '[Resolve]',
    'DNS=127.0.0.88',
    'Domains=~svc.kiln',
    'DNSStubListenerExtra=10.88.11.1',
    'DNSStubListenerExtra=10.89.11.1',
    '',
  ])
  expect(resolverDropIn({ ...at, port: 5353 })).toContain('DNS=127.0.0.88:5353\n')
  expect(resolverDropIn({ ...at, address: '::1', port: 5353 })).toContain('DNS=[::1]:5353\n')
})

test('systemd-resolved is started anew when the drop-in is another, and only then', async () => {
  const { folder, files } = await setUp()
  const file = join(folder, 'resolved.conf.d/60.conf')
  const calls: string[] = []
  const point = (text: string): Promise<void> =>
    pointResolver({
      file,
      text,
      log,
      files,
      run: async (command, args) => calls.push([command, ...args].join(' ')),
    })
  await point('one')
  await point('one')
  await point('two')
  expect(calls).toEqual(Array(2).fill('systemctl try-restart systemd-resolved.service'))
  expect(await readFile(file, 'utf8')).toBe('two')
})

test('a machine without systemd-resolved is left alone, and a failure keeps nothing from starting', async () => {
  const { folder, files } = await setUp()
  const file = join(folder, 'resolved.conf.d/60.conf')
  const run = (): Promise<never> => Promise.reject(new Fault('TOOL_FAILED', 'no'))
  await pointResolver({ file, text: 'one', log, files: { ...files, resolved: '/nowhere' }, run })
  await expect(readFile(file)).rejects.toMatchObject({ code: 'ENOENT' })
  await pointResolver({ file, text: 'one', log, files, run })
  expect(await readFile(file, 'utf8')).toBe('one')
})

test('pods ask the listener at their gateway once there is one, and else the servers of the machine', async () => {
  const { files } = await setUp()
  const pod = { hostNetwork: false, gateways: ['10.88.11.1'], nameservers: [] as string[] }
  expect(await podResolver(pod, files)).toBe('nameserver 10.0.2.3\nsearch lab.example\n')
  const head = '   sl  local_address rem_address   st tx_queue\n'
  const line = (local: string): string => `  12: ${local} 00000000:0000 07 00000000:00000000 00\n`
  await writeFile(files.udp, head + line('3500007F:0035') + line('010B580A:1234'))
  expect(await podResolver(pod, files)).toContain('10.0.2.3')
  await writeFile(files.udp, head + line('3500007F:0035') + line('010B580A:0035'))
  expect(await podResolver(pod, files)).toBe('nameserver 10.88.11.1\nsearch lab.example\n')
  expect(await podResolver({ ...pod, gateways: ['fd00::1', '10.88.11.1'] }, files)).toContain('10.88.11.1')
  expect(await podResolver({ ...pod, gateways: [] }, files)).toContain('10.0.2.3')
  const nameservers = ['192.0.2.53', 'fd00::53']
  expect(await podResolver({ ...pod, gateways: [], nameservers }, files)).toBe(
    'nameserver 192.0.2.53\nnameserver fd00::53\nsearch lab.example\n',
  )
  expect(await podResolver({ ...pod, hostNetwork: true }, files)).toBe('nameserver 127.0.0.53\n')
  expect(await podResolver(pod, { ...files, resolved: '/nowhere', udp: '/nowhere' })).toContain('192.0.2.1')
})

test('a pod that finds services by short names, or adds to the resolver, gets what it says', async () => {
  const { files } = await setUp()
  const pod = { hostNetwork: false, gateways: [], nameservers: [] }
  expect(await podResolver({ ...pod, dnsPolicy: 'ClusterFirst' }, files)).toBe(
    'nameserver 10.0.2.3\nsearch svc.kiln lab.example\n',
  )
  const dnsConfig = {
    nameservers: ['10.9.9.9', '10.0.2.3', '10.9.9.8', '10.9.9.7'],
    searches: ['lab.example', 'example.org'],
    options: [{ name: 'ndots', value: '2' }, { name: 'rotate' }, { name: 'ndots', value: '3' }],
  }
  const tail = 'options ndots:3 rotate\n'
  expect(await podResolver({ ...pod, dnsPolicy: 'Default', dnsConfig }, files)).toBe(
    `nameserver 10.0.2.3\nnameserver 10.9.9.9\nnameserver 10.9.9.8\nsearch lab.example example.org\n${tail}`,
  )
  expect(
    await podResolver(
      { ...pod, dnsPolicy: 'None', dnsConfig: { ...dnsConfig, nameservers: ['::1'] } },
      files,
    ),
  ).toBe(`nameserver ::1\nsearch lab.example example.org\n${tail}`)
})
