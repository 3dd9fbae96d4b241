import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { defaultFetchSettings } from '../fetch-resource.ts'
import type { HttpCall } from '../http-request.ts'
import { type Answer, answering, hurryingClock } from '../simulated-run.ts'
import { cloudPlatform } from './clouds.ts'
import type { Platform, PlatformPorts } from './platform.ts'
import { platformPorts } from './platform-ports.ts'

type StandIn = {
  answers?: Record<string, string | Answer>
  /** Files of volumes by label. */
  volumes?: Record<string, Record<string, string>>
  guestInfo?: Record<string, string>
  offline?: boolean
}

/** A platform with stand-ins of its metadata service, its volumes and its tools. */
function standIn(name: string, { answers = {}, volumes = {}, guestInfo = {}, offline }: StandIn) {
  const calls: HttpCall[] = []
  const labels = mkdtempSync(join(tmpdir(), 'kiln-labels-'))
  for (const label of Object.keys(volumes)) writeFileSync(join(labels, label), '')
  const ran: string[] = []
  const served = Object.entries(answers).map(([path, answer]): [string, Answer] => [
    path,
    typeof answer === 'string' ? { status: 200, body: answer } : answer,
  ])
  const ports: PlatformPorts = platformPorts({
    fetcher: {
      http: answering(Object.fromEntries(served), calls),
      clock: hurryingClock(),
      network: !offline,
    },
    settings: { ...defaultFetchSettings, proxy: { httpProxy: 'http://proxy.invalid' } },
    labels,
    command: async (command, args) => {
      ran.push(command)
      if (command === 'mount') {
        const [device = '', folder = ''] = args.slice(-2)
        for (const [path, text] of Object.entries(volumes[device.replace(/.*\//, '')] ?? {})) {
          mkdirSync(dirname(join(folder, path)), { recursive: true })
          writeFileSync(join(folder, path), text)
        }
      }
      const key = /^info-get guestinfo\.(.*)$/.exec(args[0] ?? '')?.[1]
      if (key === undefined) return { code: 0, stdout: '' }
      const stdout = guestInfo[key]
      if (stdout === undefined) throw new Fault('COMMAND_FAILED', 'No value found')
      return { code: 0, stdout }
    },
  })
  const platform = cloudPlatform(name) as Platform
  const config = async (): Promise<string | undefined> => (await platform.config(ports))?.bytes.toString()
  return { platform, ports, config, calls, ran }
}

test('aws: every request carries the token, and roles sign for S3', async () => {
  const base = '/2019-10-01/meta-data'
  const { platform, ports, config, calls } = standIn('aws', {
    answers: {
      '/latest/api/token': 'token',
      '/2019-10-01/user-data': 'config',
      [`${base}/instance-id`]: 'i-1',
      [`${base}/hostname`]: 'host',
      [`${base}/placement/region`]: 'eu-west-1',
      [`${base}/public-keys/`]: '0=mine\n1=other',
      [`${base}/public-keys/0/openssh-key`]: 'ssh-ed25519 A\n',
      [`${base}/iam/security-credentials/`]: 'role',
      [`${base}/iam/security-credentials/role`]: '{"AccessKeyId":"A","SecretAccessKey":"S","Token":"T"}',
    },
  })
  expect(await config()).toBe('config')
  expect(calls[0]).toMatchObject({ method: 'PUT', url: 'http://169.254.169.254/latest/api/token' })
  expect(calls[1]?.headers).toMatchObject({ 'X-aws-ec2-metadata-token': 'token' })
  // The token is for this machine, and the service on its own link: no proxy has a part in it.
  expect(calls.map(({ proxy }) => proxy)).toEqual([undefined, undefined])
  expect(await platform.attributes(ports)).toEqual({
    INSTANCE_ID: 'i-1',
    HOSTNAME: 'host',
    REGION: 'eu-west-1',
    SSH_KEY_0: 'ssh-ed25519 A',
  })
  expect(await platform.identity?.(ports)).toEqual({
    awsRegion: 'eu-west-1',
    awsCredentials: { accessKey: 'A', secretKey: 'S', sessionToken: 'T' },
  })
})

test('gcp: names lose their project, keys their user', async () => {
  const base = '/computeMetadata/v1/instance'
  const { platform, ports, config, calls } = standIn('gcp', {
    answers: {
      [`${base}/attributes/user-data`]: 'config',
      [`${base}/zone`]: 'projects/1/zones/europe-west1-b',
      [`${base}/network-interfaces/0/ip`]: '10.0.0.2',
      [`${base}/attributes/ssh-keys`]: 'me:ssh-rsa A\nyou:ssh-rsa B\n',
      [`${base}/service-accounts/default/token`]: '{"access_token":"t","expires_in":9}',
    },
  })
  expect(await config()).toBe('config')
  expect(calls[0]?.headers).toMatchObject({ 'Metadata-Flavor': 'Google' })
  expect(await platform.attributes(ports)).toEqual({
    ZONE: 'europe-west1-b',
    IPV4_LOCAL: '10.0.0.2',
    SSH_KEY_0: 'ssh-rsa A',
    SSH_KEY_1: 'ssh-rsa B',
  })
  expect(await platform.identity?.(ports)).toEqual({ gcpToken: 't' })
})

test('azure: user data is base64, and custom data comes from the provisioning disk', async () => {
  const userData = '/metadata/instance/compute/userData'
  const modern = standIn('azure', {
    answers: {
      [userData]: Buffer.from('config').toString('base64'),
      '/metadata/instance': JSON.stringify({
        compute: { name: 'vm', vmId: 'id', location: 'westeurope', publicKeys: [{ keyData: 'ssh-rsa A\n' }] },
        network: {
          interface: [{ ipv4: { ipAddress: [{ privateIpAddress: '10.0.0.4', publicIpAddress: '' }] } }],
        },
      }),
    },
  })
  expect(await modern.config()).toBe('config')
  expect(modern.calls[0]?.headers).toMatchObject({ Metadata: 'true' })
  expect(await modern.platform.attributes(modern.ports)).toEqual({
    HOSTNAME: 'vm',
    INSTANCE_ID: 'id',
    REGION: 'westeurope',
    IPV4_LOCAL: '10.0.0.4',
    SSH_KEY_0: 'ssh-rsa A',
  })
  const older = standIn('azure', { volumes: { 'rd_rdfe_stable.1': { 'CustomData.bin': 'custom' } } })
  expect(await older.config()).toBe('custom')
  expect(older.ran).toEqual(['mount', 'umount'])
})

test('azure: the managed identity has a token for storage, a machine without one is told so', async () => {
  const token = '/metadata/identity/oauth2/token'
  const own = standIn('azure', { answers: { [token]: '{"access_token":"t","expires_in":"86399"}' } })
  expect(await own.platform.identity?.(own.ports)).toEqual({ azureToken: 't' })
  const asked = new URL(own.calls[0]!.url)
  expect(asked.searchParams.get('resource')).toBe('https://storage.azure.com/')
  expect(own.calls[0]?.headers).toMatchObject({ Metadata: 'true' })
  const none = standIn('azure', {
    answers: { [token]: { status: 400, body: '{"error":"invalid_request"}' } },
  })
  expect(await none.platform.identity?.(none.ports)).toEqual({})
})

test('openstack: the config drive needs no network, the service stands in for it', async () => {
  const files = {
    'openstack/latest/user_data': 'drive',
    'openstack/latest/meta_data.json': '{"uuid":"u","hostname":"h","public_keys":{"k":"ssh-rsa A"}}',
  }
  expect(await standIn('openstack', { volumes: { 'config-2': files }, offline: true }).config()).toBe('drive')
  const service = standIn('openstack', {
    answers: {
      '/openstack/latest/user_data': 'service',
      '/openstack/latest/meta_data.json': files['openstack/latest/meta_data.json'],
      '/latest/meta-data/local-ipv4': '10.0.0.5',
    },
  })
  expect(await service.config()).toBe('service')
  expect(await service.platform.attributes(service.ports)).toEqual({
    HOSTNAME: 'h',
    INSTANCE_ID: 'u',
    IPV4_LOCAL: '10.0.0.5',
    SSH_KEY_0: 'ssh-rsa A',
  })
  await expect(standIn('openstack', { offline: true }).config()).rejects.toMatchObject({
    code: 'NEEDS_NETWORK',
  })
})

test('digitalocean and hetzner', async () => {
  const ocean = standIn('digitalocean', {
    answers: {
      '/metadata/v1/user-data': 'config',
      '/metadata/v1.json': JSON.stringify({
        droplet_id: 7,
        hostname: 'd',
        region: 'ams3',
        public_keys: ['ssh-rsa A'],
        interfaces: { public: [{ ipv4: { ip_address: '192.0.2.1' } }] },
      }),
    },
  })
  expect(await ocean.config()).toBe('config')
  expect(await ocean.platform.attributes(ocean.ports)).toEqual({
    HOSTNAME: 'd',
    INSTANCE_ID: '7',
    REGION: 'ams3',
    IPV4_PUBLIC: '192.0.2.1',
    SSH_KEY_0: 'ssh-rsa A',
  })
  const base = '/hetzner/v1/metadata'
  const hetzner = standIn('hetzner', {
    answers: {
      '/hetzner/v1/userdata': 'config',
      [`${base}/hostname`]: 'h',
      [`${base}/public-ipv4`]: '192.0.2.2',
      [`${base}/public-keys`]: '["ssh-ed25519 A"]',
    },
  })
  expect(await hetzner.config()).toBe('config')
  const attributes = { HOSTNAME: 'h', IPV4_PUBLIC: '192.0.2.2', SSH_KEY_0: 'ssh-ed25519 A' }
  expect(await hetzner.platform.attributes(hetzner.ports)).toEqual(attributes)
})

test.each([
  ['', 'config'],
  ['base64', Buffer.from('config').toString('base64')],
  ['gz+b64', gzipSync('config').toString('base64')],
])('vmware: guestinfo encoded as %j', async (encoding, data) => {
  const guestInfo = {
    'ignition.config.data': data,
    hostname: 'vm',
    ...(encoding ? { 'ignition.config.data.encoding': encoding } : {}),
  }
  const { platform, ports, config } = standIn('vmware', { guestInfo, offline: true })
  expect(await config()).toBe('config')
  expect(await platform.attributes(ports)).toEqual({ HOSTNAME: 'vm' })
})

test('vmware: an encoding nobody knows is refused, and no value is no config', async () => {
  const guestInfo = { 'ignition.config.data': 'x', 'ignition.config.data.encoding': 'rot13' }
  await expect(standIn('vmware', { guestInfo }).config()).rejects.toMatchObject({ code: 'RESOURCE_INVALID' })
  expect(await standIn('vmware', {}).config()).toBeUndefined()
})

test('proxmoxve: the volume of cloud-init, unless what it has is for cloud-init', async () => {
  const meta = 'instance-id: "i-9"\nlocal-hostname: p\nother: x\n'
  const ours = standIn('proxmoxve', {
    volumes: { cidata: { 'user-data': '{}', 'meta-data': meta } },
    offline: true,
  })
  expect(await ours.config()).toBe('{}')
  expect(await ours.platform.attributes(ours.ports)).toEqual({ INSTANCE_ID: 'i-9', HOSTNAME: 'p' })
  const theirs = standIn('nocloud', { volumes: { cidata: { 'user-data': '#cloud-config\nusers: []' } } })
  expect(await theirs.config()).toBeUndefined()
  expect(await standIn('nocloud', {}).config()).toBeUndefined()
})
