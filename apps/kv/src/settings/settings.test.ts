import type { Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { helpText } from './flags.ts'
import { durationMs } from './read-flags.ts'
import { loadSettings, type Settings } from './settings.ts'

function load(argv: string[], env: Record<string, string> = {}, files: Record<string, string> = {}) {
  const readFile = (path: string): string => {
    const text = files[path]
    if (text === undefined) throw new Error(`no such file ${path}`)
    return text
  }
  return loadSettings({ argv, env, readFile })
}

function problemsOf(
  argv: string[],
  env: Record<string, string> = {},
  files: Record<string, string> = {},
): string {
  try {
    load(argv, env, files)
  } catch (error) {
    expect(error).toMatchObject({ code: 'SETTINGS_INVALID' })
    return (error as Fault).message
  }
  throw new Error('the settings were accepted')
}

const settingsOf = (argv: string[], env: Record<string, string> = {}): Settings => load(argv, env).settings

test('without flags it is one member on localhost, as etcd is', () => {
  const settings = settingsOf([])
  expect(settings).toMatchObject({ name: 'default', joining: false, quotaBytes: 2 ** 31, txnOpsMax: 128 })
  expect(settings.dataDir.endsWith('/default.etcd')).toBe(true)
  expect(settings.listenClient).toMatchObject([{ host: 'localhost', port: 2379, secure: false }])
  expect(settings.initialCluster).toMatchObject([{ name: 'default', peerUrls: ['http://localhost:2380'] }])
})

test('flags win over the environment and both over defaults', () => {
  const env = { ETCD_NAME: 'env', ETCD_SNAPSHOT_COUNT: '5' }
  expect(settingsOf(['--initial-cluster', 'flag=http://localhost:2380', '-name=flag'], env)).toMatchObject({
    name: 'flag',
    snapshotEntries: 5,
  })
})

test('a config file replaces flags and environment', () => {
  const files = {
    'a.yaml': `
name: file
listen-client-urls: https://0.0.0.0:2379
advertise-client-urls: https://10.0.0.1:2379
heartbeat-interval: 200
client-transport-security: { cert-file: c.pem, key-file: k.pem, client-cert-auth: true, trusted-ca-file: ca.pem }
peer-transport-security: { cert-file: p.pem, key-file: pk.pem }
`,
  }
  const { settings } = load(['--config-file', 'a.yaml', '--name', 'flag'], { ETCD_NAME: 'env' }, files)
  expect(settings).toMatchObject({
    name: 'file',
    heartbeatMs: 200,
    clientTls: { certFile: 'c.pem', keyFile: 'k.pem', caFile: 'ca.pem', clientAuth: true },
    peerTls: { certFile: 'p.pem', clientAuth: false },
  })
  expect(problemsOf([], { ETCD_CONFIG_FILE: 'gone.yaml' }, files)).toContain('gone.yaml')
  expect(problemsOf(['--config-file=b'], {}, { b: 'nmae: x' })).toContain('unknown setting nmae')
})

test('all problems are told at once', () => {
  const text = problemsOf(['--nmae', 'x', '--snapshot-count=many', '--listen-peer-urls=10.0.0.1:2380'])
  expect(text).toContain('flag provided but not defined: -nmae')
  expect(text).toContain('--snapshot-count: "many" is not a number')
  expect(text).toContain("--listen-peer-urls: '10.0.0.1:2380' is not http://HOST:PORT")
})

test('flags that only tune are accepted with a warning that says what happens instead', () => {
  const { warnings } = load(['--backend-batch-limit=5', '--max-wals', '3'])
  expect(warnings).toEqual([
    '--backend-batch-limit has no effect: each turn of the event loop is a batch',
    '--max-wals has no effect: log segments are reused',
  ])
  expect(load(['--strict-reconfig-check=false']).warnings).toEqual([
    '--strict-reconfig-check has no effect: changes that may lose the quorum are always refused',
  ])
})

test('flags that would change what is promised are refused by name, unless they say what is so anyway', () => {
  expect(problemsOf(['--unsafe-no-fsync'])).toContain(
    '--unsafe-no-fsync=true is not supported: every write is synced',
  )
  expect(problemsOf(['--discovery=http://x'])).toContain('--discovery=http://x is not supported')
  expect(load(['--unsafe-no-fsync=false', '--pre-vote', '--auth-token', 'simple']).warnings).toEqual([])
})

test('a cluster must have this member with the URLs it advertises', () => {
  const cluster = 'a=http://10.0.0.1:2380,b=http://10.0.0.2:2380'
  expect(problemsOf(['--name=c', `--initial-cluster=${cluster}`])).toContain('couldn\'t find local name "c"')
  expect(problemsOf(['--name=a', `--initial-cluster=${cluster}`])).toContain('--initial-advertise-peer-urls')
  const flags = [
    '--name=a',
    '--initial-advertise-peer-urls=http://10.0.0.1:2380',
    `--initial-cluster=${cluster}`,
  ]
  expect(settingsOf(flags).initialCluster.map(({ name }) => name)).toEqual(['a', 'b'])
  const other = settingsOf([...flags, '--initial-cluster-token=other'])
  expect(other.initialCluster[0]!.id).not.toBe(settingsOf(flags).initialCluster[0]!.id)
})

test('rules between flags are etcd’s', () => {
  expect(problemsOf(['--heartbeat-interval=300'])).toContain('at least as 5 times')
  expect(problemsOf(['--election-timeout=60000'])).toContain('too long')
  expect(problemsOf(['--listen-client-urls=http://0.0.0.0:2379'])).toContain(
    '--advertise-client-urls is required',
  )
  expect(problemsOf(['--client-cert-auth', '--cert-file=c', '--key-file=k'])).toContain('--trusted-ca-file')
  expect(problemsOf(['--listen-peer-urls=https://localhost:2380'])).toContain('--peer-cert-file')
})

test('auto compaction counts revisions or time, hours by default', () => {
  const of = (mode: string, retention: string) =>
    settingsOf([`--auto-compaction-mode=${mode}`, `--auto-compaction-retention=${retention}`]).autoCompaction
  expect(of('periodic', '0')).toEqual({ kind: 'off' })
  expect(of('periodic', '2')).toEqual({ kind: 'periodic', periodMs: 7_200_000 })
  expect(of('periodic', '30m')).toEqual({ kind: 'periodic', periodMs: 1_800_000 })
  expect(of('revision', '1000')).toEqual({ kind: 'revision', keep: 1000 })
  expect(problemsOf(['--auto-compaction-mode=revision', '--auto-compaction-retention=1h'])).toContain(
    'retention',
  )
})

test('a compaction frees a thousand revisions at a time unless told otherwise', () => {
  expect(settingsOf([])).toMatchObject({ compactionBatch: 1000, compactionPauseMs: 10 })
  const flags = ['--experimental-compaction-batch-limit=5', '--compaction-sleep-interval=1s']
  expect(settingsOf(flags)).toMatchObject({ compactionBatch: 5, compactionPauseMs: 1000 })
  expect(problemsOf(['--compaction-batch-limit=0'])).toContain('below 1')
})

test('what 3.6 freed of experimental- goes by both names, in flags, variables and the file', () => {
  expect(settingsOf(['--experimental-watch-progress-notify-interval=2s']).progressIntervalMs).toBe(2000)
  expect(settingsOf(['--watch-progress-notify-interval=1ms']).progressIntervalMs).toBe(100)
  expect(settingsOf([], { ETCD_EXPERIMENTAL_MAX_LEARNERS: '3' }).learnersMax).toBe(3)
  expect(settingsOf([], { ETCD_MAX_LEARNERS: '2', ETCD_EXPERIMENTAL_MAX_LEARNERS: '3' }).learnersMax).toBe(2)
  const files = { f: 'experimental-corrupt-check-time: 4h\nenable-grpc-gateway: false\n' }
  expect(load(['--config-file=f'], {}, files).settings).toMatchObject({
    corruptCheckMs: 4 * 3_600_000,
    jsonGateway: false,
  })
  expect(problemsOf(['--experimental-nothing=1'])).toContain(
    'flag provided but not defined: -experimental-nothing',
  )
})

test('versions and ciphers of TLS are what Go calls them', () => {
  const suites = 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305'
  const { tlsProtocol } = settingsOf([`--cipher-suites=${suites}`, '--tls-max-version=TLS1.3'])
  expect(tlsProtocol).toMatchObject({ minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3' })
  expect(tlsProtocol.ciphers).toMatch(/:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305$/)
  expect(settingsOf(['--tls-min-version=TLS1.3']).tlsProtocol).toEqual({ minVersion: 'TLSv1.3' })
  expect(problemsOf(['--cipher-suites=TLS_NONE'])).toContain('unexpected TLS cipher suite "TLS_NONE"')
  expect(problemsOf(['--tls-min-version=SSL3'])).toContain('unexpected TLS version "SSL3"')
  expect(problemsOf(['--tls-min-version=TLS1.3', '--tls-max-version=TLS1.2'])).toContain(
    'min version (TLS1.3) is greater than max version (TLS1.2)',
  )
  expect(problemsOf(['--tls-min-version=TLS1.3', `--cipher-suites=${suites}`])).toContain(
    'cipher suites cannot be configured when only TLS1.3 is enabled',
  )
})

test('true and false are what Go takes for them', () => {
  expect(settingsOf(['--force-new-cluster=1', '--enable-grpc-gateway=F'])).toMatchObject({
    forceNewCluster: true,
    jsonGateway: false,
  })
  expect(settingsOf([], { ETCD_AUTO_DISARM: 'TRUE' }).autoDisarm).toBe(true)
  expect(problemsOf(['--auto-disarm=yes'])).toContain('--auto-disarm: is either true or false')
})

test('a config file like etcd’s example of all settings is taken', () => {
  const file = `
wal-dir:
strict-reconfig-check: false
discovery:
discovery-fallback: 'proxy'
discovery-srv:
initial-cluster:
proxy: 'off'
client-transport-security:
  client-cert-auth: false
  client-cert-file:
log-outputs: [stderr]
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
tls-max-version: 'TLS1.3'
`
  const { settings } = load(['--config-file=f'], {}, { f: file })
  expect(settings.tlsProtocol.ciphers).toContain(':ECDHE-RSA-AES256-GCM-SHA384')
})

test('names that may come in, and certificates made here', () => {
  const peer = ['--peer-cert-file=c', '--peer-key-file=k', '--peer-crl-file=r']
  expect(settingsOf([...peer, '--peer-cert-allowed-cn=a,b']).peerTls).toMatchObject({
    allowedCommonNames: ['a', 'b'],
    allowedHostnames: [],
    crlFile: 'r',
  })
  const outgoing = settingsOf([...peer, '--peer-client-cert-file=oc', '--peer-client-key-file=ok']).peerTls
  expect(outgoing?.outgoing).toEqual({ certFile: 'oc', keyFile: 'ok' })
  expect(problemsOf([...peer, '--peer-client-cert-file=oc'])).toContain('need each other')
  expect(problemsOf([...peer, '--peer-cert-allowed-cn=a', '--peer-cert-allowed-hostname=h'])).toContain(
    'exclude each other',
  )
  const auto = settingsOf(['--auto-tls', '--self-signed-cert-validity=3'])
  expect(auto.clientTls?.selfSigned).toEqual({ hosts: ['localhost'], years: 3 })
  const given = load(['--auto-tls', '--cert-file=c', '--key-file=k'])
  expect(given.warnings).toEqual(['--auto-tls has no effect: a certificate is given'])
  expect(given.settings.clientTls?.selfSigned).toBeUndefined()
})

test('the first members are named by a list or by a domain, not by both', () => {
  const found = settingsOf(['--discovery-srv=example.com', '--discovery-srv-name=blue'])
  expect(found).toMatchObject({ discoverySrv: { domain: 'example.com', suffix: 'blue' }, initialCluster: [] })
  expect(
    problemsOf(['--discovery-srv=example.com', '--initial-cluster=default=http://localhost:2380']),
  ).toContain('exclude each other')
  expect(problemsOf(['--discovery-token=t'])).toContain('--discovery-endpoints need each other')
  const v3 = ['--discovery-token=t', '--discovery-endpoints=http://a:2379,b:2379']
  expect(settingsOf(v3)).toMatchObject({
    token: 't',
    initialCluster: [],
    discoveryV3: { endpoints: ['http://a:2379', 'http://b:2379'], timeoutMs: 5000 },
  })
  expect(problemsOf([...v3, '--discovery-user=root:pw'])).toContain('asked without a user')
})

test('durations are written as in Go', () => {
  expect(durationMs('1h30m')).toBe(5_400_000)
  expect(durationMs('1.5s')).toBe(1500)
  expect(durationMs('5')).toBe(5 / 1e6)
  expect(durationMs('5 minutes')).toBeUndefined()
})

test('tokens are simple ones or signed ones, whose options are checked', () => {
  const of = (...flags: string[]) => settingsOf(flags).authToken
  expect(of()).toEqual({ kind: 'simple', ttlMs: 300_000 })
  expect(of('--auth-token-ttl=60')).toEqual({ kind: 'simple', ttlMs: 60_000 })
  expect(of('--auth-token=jwt,pub-key=p.pem,priv-key=k.pem,sign-method=PS384,ttl=10m')).toEqual({
    kind: 'jwt',
    method: 'PS384',
    publicKeyFile: 'p.pem',
    privateKeyFile: 'k.pem',
    ttlMs: 600_000,
  })
  expect(of('--auth-token=jwt,priv-key=k,sign-method=HS256')).toMatchObject({ ttlMs: 300_000 })
  expect(problemsOf(['--auth-token=basic'])).toContain("'basic' is not simple or jwt")
  expect(problemsOf(['--auth-token=jwt,priv-key=k'])).toContain('sign-method is none of RS256')
  expect(problemsOf(['--auth-token=jwt,sign-method=none'])).toContain('sign-method is none of')
  expect(problemsOf(['--auth-token=jwt,sign-method=RS256,x=1'])).toContain("'x=1' is no option of jwt")
  expect(problemsOf(['--auth-token=jwt,sign-method=RS256,ttl=soon'])).toContain("ttl 'soon' is no duration")
  expect(problemsOf(['--auth-token-ttl=0'])).toContain('--auth-token-ttl: 0 is below 1')
})

test('a strength of hashes out of bounds is the default, and said so', () => {
  expect(settingsOf(['--bcrypt-cost=12']).bcryptCost).toBe(12)
  const { settings, warnings } = load(['--bcrypt-cost=99'])
  expect(settings.bcryptCost).toBe(10)
  expect(warnings).toEqual(['--bcrypt-cost=99 is not within 4 and 31: it is 10'])
})

test('the help names every flag that does something', () => {
  for (const name of ['--name', '--initial-cluster', '--quota-backend-bytes', '--accept-damage']) {
    expect(helpText()).toContain(name)
  }
})
