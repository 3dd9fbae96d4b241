import { resolve } from 'node:path'
import { Fault } from '@kiln/service'
import type { JwtSettings } from '../auth/jwt.ts'
import { parseInitialCluster } from '../consensus/identity.ts'
import type { Member } from '../consensus/types.ts'
import { bcryptCost, readAuthToken } from './auth-token.ts'
import { durationMs, type RawSettings, readFlags, type SettingsInput } from './read-flags.ts'
import { readTlsProtocol, type TlsProtocol } from './tls-protocol.ts'

/** A URL to listen on or to tell others. */
export type Endpoint = { url: string; host: string; port: number; secure: boolean }

export type TlsFiles = {
  certFile: string
  keyFile: string
  caFile: string
  crlFile: string
  clientAuth: boolean
  /** Names of which a certificate must have one; empty lets in every certificate that verifies. */
  allowedCommonNames: string[]
  allowedHostnames: string[]
  /** What a member shows when it connects to another, instead of the above. */
  outgoing?: { certFile: string; keyFile: string }
  /** A certificate is made at the start, for these hosts, if there is none yet. */
  selfSigned?: { hosts: string[]; years: number }
}

export type DiscoveryV3 = {
  token: string
  endpoints: string[]
  caFile: string
  certFile: string
  keyFile: string
  timeoutMs: number
}

/** How users show that they have logged in. */
export type AuthTokenSettings = { kind: 'simple'; ttlMs: number } | JwtSettings

export type AutoCompaction =
  | { kind: 'off' }
  | { kind: 'revision'; keep: number }
  | { kind: 'periodic'; periodMs: number }

/** What the daemon runs with, checked as a whole. */
export type Settings = {
  name: string
  dataDir: string
  listenClient: Endpoint[]
  listenPeer: Endpoint[]
  listenMetrics: Endpoint[]
  /** Where HTTP is when `listenClient` is for gRPC alone; empty: both share `listenClient`. */
  listenHttp: Endpoint[]
  advertiseClientUrls: string[]
  advertisePeerUrls: string[]
  /** Domain and service suffix of the SRV records that name the first members, instead of `initialCluster`. */
  discoverySrv: { domain: string; suffix: string } | undefined
  /** A running cluster where the first members find each other under a token, instead of `initialCluster`. */
  discoveryV3: DiscoveryV3 | undefined
  /** The first members, with the ids that all of them derive. Only looked at with an empty data directory. */
  initialCluster: Member[]
  joining: boolean
  token: string
  heartbeatMs: number
  electionMs: number
  snapshotEntries: number
  snapshotFiles: number
  keptEntries: number
  quotaBytes: number
  txnOpsMax: number
  requestBytesMax: number
  streamsMax: number
  pingIntervalMinMs: number
  keepAliveIntervalMs: number
  keepAliveTimeoutMs: number
  autoCompaction: AutoCompaction
  compactionBatch: number
  compactionPauseMs: number
  progressIntervalMs: number
  learnersMax: number
  slowRequestMs: number
  slowApplyMs: number
  /** 0: members are not compared. */
  corruptCheckMs: number
  initialCorruptCheck: boolean
  autoDisarm: boolean
  jsonGateway: boolean
  /** Origins and host names that may ask; `*` is all. */
  cors: string[]
  hostWhitelist: string[]
  /** Serves profiles of the process. */
  profiles: boolean
  clientTls: TlsFiles | undefined
  peerTls: TlsFiles | undefined
  authToken: AuthTokenSettings
  bcryptCost: number
  tlsProtocol: TlsProtocol
  extensiveMetrics: boolean
  logLevel: string
  acceptDamage: boolean
  forceNewCluster: boolean
  leaseReads: boolean
  /** Bytes of values in memory; infinite: all of them. */
  valueBytesMax: number
  /** How long all members run a new program before what it writes may need it. */
  storeUpgradeDelayMs: number
  /** Whose gRPC server: ours, or that of @grpc/grpc-js. */
  wire: 'kiln' | 'grpc-js'
}

const quotaDefault = 2 * 1024 ** 3
const logLevels = ['debug', 'info', 'warn', 'error', 'panic', 'fatal']

/** Reads and checks all settings; every problem is reported at once in one `SETTINGS_INVALID`. */
export function loadSettings(input: SettingsInput): { settings: Settings; warnings: string[] } {
  const raw = readFlags(input)
  const settings = checkSettings(raw)
  if (raw.problems.length > 0) {
    throw new Fault('SETTINGS_INVALID', `settings of kiln-kv are invalid: ${raw.problems.join('; ')}`, {
      remedy: 'kiln-kv --help lists the flags',
    })
  }
  return { settings, warnings: raw.warnings }
}

function checkSettings(raw: RawSettings): Settings {
  const { problems } = raw
  const text = (name: string): string => raw.values.get(name) ?? ''
  const number = (name: string, min: number): number => {
    const value = Number(text(name))
    if (value < min) problems.push(`--${name}: ${value} is below ${min}`)
    return value
  }
  const ms = (name: string): number => durationMs(text(name)) ?? 0
  const truth = (name: string): boolean => text(name) === 'true'
  const endpoints = (name: string): Endpoint[] => readEndpoints(name, text(name), problems)

  const name = text('name')
  const listenClient = endpoints('listen-client-urls')
  if (raw.given.has('listen-client-urls') && !raw.given.has('advertise-client-urls')) {
    problems.push('--advertise-client-urls is required when --listen-client-urls is set explicitly')
  }
  const advertisePeerUrls = endpoints('initial-advertise-peer-urls').map(({ url }) => url)
  const heartbeatMs = number('heartbeat-interval', 1)
  const electionMs = number('election-timeout', 1)
  if (electionMs < 5 * heartbeatMs) {
    problems.push(
      `--election-timeout[${electionMs}ms] should be at least as 5 times as --heartbeat-interval[${heartbeatMs}ms]`,
    )
  }
  if (electionMs > 50_000)
    problems.push(`--election-timeout[${electionMs}ms] is too long, should be at most 50000ms`)
  const state = text('initial-cluster-state')
  if (state !== 'new' && state !== 'existing')
    problems.push(`--initial-cluster-state: '${state}' is not new or existing`)
  if (!logLevels.includes(text('log-level')))
    problems.push(`--log-level: ${text('log-level')} is none of ${logLevels.join(' ')}`)
  const wire = text('wire')
  if (wire !== 'kiln' && wire !== 'grpc-js') problems.push(`--wire is kiln or grpc-js, not ${wire}`)
  if (
    wire === 'grpc-js' &&
    ['client-crl-file', 'client-cert-allowed-hostname'].some((flag) => text(flag) !== '')
  ) {
    problems.push('--wire=grpc-js knows no revoked certificates and no allowed names')
  }
  const metrics = text('metrics')
  if (metrics !== 'basic' && metrics !== 'extensive')
    problems.push(`--metrics: '${metrics}' is not basic or extensive`)

  const discoverySrv = text('discovery-srv')
    ? { domain: text('discovery-srv'), suffix: text('discovery-srv-name') }
    : undefined
  const discoveryV3 = readDiscoveryV3(raw)
  const sources = ['initial-cluster', 'discovery-srv', 'discovery-token'].filter(
    (each) => raw.given.has(each) && text(each) !== '',
  )
  if (sources.length > 1) problems.push(`--${sources.join(' and --')} exclude each other`)
  return {
    name,
    dataDir: resolve(text('data-dir') || `${name}.etcd`),
    listenClient,
    listenPeer: endpoints('listen-peer-urls'),
    listenMetrics: endpoints('listen-metrics-urls'),
    listenHttp: endpoints('listen-client-http-urls'),
    advertiseClientUrls: endpoints('advertise-client-urls').map(({ url }) => url),
    advertisePeerUrls,
    discoverySrv,
    discoveryV3,
    initialCluster: discoverySrv || discoveryV3 ? [] : readInitialCluster(raw, name, advertisePeerUrls),
    joining: state === 'existing',
    token: discoveryV3?.token ?? text('initial-cluster-token'),
    heartbeatMs,
    electionMs,
    snapshotEntries: number('snapshot-count', 1),
    keptEntries: number('snapshot-catchup-entries', 0),
    snapshotFiles: Math.max(1, number('max-snapshots', 0) || 5),
    quotaBytes: number('quota-backend-bytes', Number.NEGATIVE_INFINITY) || quotaDefault,
    txnOpsMax: number('max-txn-ops', 1),
    requestBytesMax: number('max-request-bytes', 1),
    streamsMax: Math.min(number('max-concurrent-streams', 0) || 100_000, 2 ** 31 - 1),
    pingIntervalMinMs: ms('grpc-keepalive-min-time'),
    keepAliveIntervalMs: ms('grpc-keepalive-interval'),
    keepAliveTimeoutMs: ms('grpc-keepalive-timeout'),
    autoCompaction: readAutoCompaction(raw),
    progressIntervalMs: Math.max(100, ms('watch-progress-notify-interval')),
    learnersMax: number('max-learners', 1),
    slowRequestMs: ms('warning-unary-request-duration'),
    slowApplyMs: ms('warning-apply-duration'),
    corruptCheckMs: ms('corrupt-check-time'),
    initialCorruptCheck: truth('initial-corrupt-check'),
    autoDisarm: truth('auto-disarm'),
    jsonGateway: truth('enable-grpc-gateway'),
    cors: listOf(text('cors'), '*'),
    hostWhitelist: listOf(text('host-whitelist'), '*'),
    profiles: truth('enable-pprof'),
    compactionBatch: number('compaction-batch-limit', 1),
    compactionPauseMs: ms('compaction-sleep-interval'),
    clientTls: readTls(raw, '', listenClient),
    peerTls: readTls(raw, 'peer-', endpoints('listen-peer-urls')),
    authToken: readAuthToken(raw),
    bcryptCost: bcryptCost(raw),
    tlsProtocol: readTlsProtocol(raw),
    extensiveMetrics: metrics === 'extensive',
    logLevel: text('log-level').replace('panic', 'fatal'),
    acceptDamage: truth('accept-damage'),
    forceNewCluster: truth('force-new-cluster'),
    leaseReads: truth('lease-reads'),
    valueBytesMax: valueBytes(text('values-in-memory'), problems),
    storeUpgradeDelayMs: ms('store-upgrade-delay'),
    wire: wire === 'grpc-js' ? 'grpc-js' : 'kiln',
  }
}

const valueBytesMin = 1 << 20
const units: Record<string, number> = { '': 1, KiB: 1 << 10, MiB: 1 << 20, GiB: 1 << 30 }

function valueBytes(text: string, problems: string[]): number {
  const [, digits, unit] = /^(\d+)(|KiB|MiB|GiB)$/.exec(text) ?? []
  const bytes = Number(digits) * units[unit ?? '']!
  if (bytes === 0) return Number.POSITIVE_INFINITY
  if (!(bytes >= valueBytesMin))
    problems.push(`--values-in-memory: '${text}' is not a size of at least 1 MiB`)
  return bytes
}

const listOf = (text: string, whenEmpty?: string): string[] => {
  const list = text
    .split(',')
    .map((each) => each.trim())
    .filter((each) => each !== '')
  return list.length === 0 && whenEmpty ? [whenEmpty] : list
}

function readEndpoints(name: string, value: string, problems: string[]): Endpoint[] {
  const endpoints: Endpoint[] = []
  for (const part of value.split(',').filter((each) => each !== '')) {
    const url = URL.canParse(part) ? new URL(part) : undefined
    const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:'
    const port = url ? Number(/:(\d+)\/?$/.exec(part)?.[1] ?? Number.NaN) : Number.NaN
    if (!url || !isHttp || Number.isNaN(port) || (url.pathname !== '/' && url.pathname !== '')) {
      problems.push(`--${name}: '${part}' is not http://HOST:PORT or https://HOST:PORT`)
      continue
    }
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1')
    endpoints.push({ url: part.replace(/\/$/, ''), host, port, secure: url.protocol === 'https:' })
  }
  return endpoints
}

function readInitialCluster(raw: RawSettings, name: string, advertisePeerUrls: string[]): Member[] {
  const text = raw.values.get('initial-cluster') || advertisePeerUrls.map((url) => `${name}=${url}`).join(',')
  const members = readMembers(text, raw)
  const own = members.find((member) => member.name === name)
  if (!own) raw.problems.push(`--initial-cluster: couldn't find local name "${name}"`)
  else if ([...own.peerUrls].sort().join() !== [...advertisePeerUrls].sort().join()) {
    raw.problems.push(
      `--initial-cluster has ${own.peerUrls.join()} for ${name} but --initial-advertise-peer-urls is ${advertisePeerUrls.join()}`,
    )
  }
  return members
}

function readMembers(text: string, raw: RawSettings): Member[] {
  try {
    return parseInitialCluster(text, raw.values.get('initial-cluster-token') ?? '')
  } catch (error) {
    raw.problems.push(`--initial-cluster: ${(error as Error).message}`)
    return []
  }
}

function readDiscoveryV3(raw: RawSettings): DiscoveryV3 | undefined {
  const text = (name: string): string => raw.values.get(`discovery-${name}`) ?? ''
  const endpoints = listOf(text('endpoints'))
  if (text('token') === '' && endpoints.length === 0) return undefined
  if (text('token') === '' || endpoints.length === 0)
    raw.problems.push('--discovery-token and --discovery-endpoints need each other')
  return {
    token: text('token'),
    endpoints: endpoints.map((url) => (url.includes('://') ? url : `http://${url}`)),
    caFile: text('cacert'),
    certFile: text('cert'),
    keyFile: text('key'),
    timeoutMs: durationMs(text('request-timeout')) ?? 0,
  }
}

function readAutoCompaction(raw: RawSettings): AutoCompaction {
  const mode = raw.values.get('auto-compaction-mode') ?? ''
  const retention = raw.values.get('auto-compaction-retention') ?? '0'
  if (mode !== 'periodic' && mode !== 'revision') {
    raw.problems.push(`--auto-compaction-mode: '${mode}' is not periodic or revision`)
    return { kind: 'off' }
  }
  const isNumber = /^\d+$/.test(retention)
  if (isNumber && Number(retention) === 0) return { kind: 'off' }
  if (mode === 'revision') {
    if (!isNumber) raw.problems.push(`--auto-compaction-retention: '${retention}' is no number of revisions`)
    return { kind: 'revision', keep: Number(retention) }
  }
  const periodMs = isNumber ? Number(retention) * 3_600_000 : durationMs(retention)
  if (periodMs === undefined) raw.problems.push(`--auto-compaction-retention: '${retention}' is no duration`)
  return periodMs ? { kind: 'periodic', periodMs } : { kind: 'off' }
}

function readTls(raw: RawSettings, prefix: '' | 'peer-', listen: Endpoint[]): TlsFiles | undefined {
  const text = (name: string): string => raw.values.get(name) ?? ''
  const files: TlsFiles = {
    certFile: text(`${prefix}cert-file`),
    keyFile: text(`${prefix}key-file`),
    caFile: text(`${prefix}trusted-ca-file`),
    crlFile: text(prefix === '' ? 'client-crl-file' : 'peer-crl-file'),
    clientAuth: text(`${prefix}client-cert-auth`) === 'true',
    allowedCommonNames: prefix === '' ? [] : listOf(text('peer-cert-allowed-cn')),
    allowedHostnames: listOf(
      text(prefix === '' ? 'client-cert-allowed-hostname' : 'peer-cert-allowed-hostname'),
    ),
  }
  const outgoing = { certFile: text('peer-client-cert-file'), keyFile: text('peer-client-key-file') }
  if (prefix === 'peer-' && (outgoing.certFile !== '' || outgoing.keyFile !== '')) {
    if (outgoing.certFile === '' || outgoing.keyFile === '')
      raw.problems.push('--peer-client-cert-file and --peer-client-key-file need each other')
    files.outgoing = outgoing
  }
  if (files.allowedCommonNames.length > 0 && files.allowedHostnames.length > 0)
    raw.problems.push('--peer-cert-allowed-cn and --peer-cert-allowed-hostname exclude each other')
  const isSecure = listen.some(({ secure }) => secure)
  const isAuto = text(`${prefix}auto-tls`) === 'true'
  if (files.certFile === '' && files.keyFile === '') {
    if (isAuto) return selfSigned(files, text('self-signed-cert-validity'), listen)
    if (isSecure) raw.problems.push(`https to listen on needs --${prefix}cert-file and --${prefix}key-file`)
    return undefined
  }
  if (isAuto) raw.warnings.push(`--${prefix}auto-tls has no effect: a certificate is given`)
  if (files.certFile === '' || files.keyFile === '') {
    raw.problems.push(`--${prefix}cert-file and --${prefix}key-file need each other`)
  }
  if (files.clientAuth && files.caFile === '') {
    raw.problems.push(`--${prefix}client-cert-auth needs --${prefix}trusted-ca-file`)
  }
  return files
}

/** The files are made below the data directory when the member starts; nobody can be asked for a certificate of that kind. */
function selfSigned(files: TlsFiles, years: string, listen: Endpoint[]): TlsFiles {
  const hosts = [...new Set(listen.map(({ host }) => host))]
  return { ...files, clientAuth: false, selfSigned: { hosts, years: Math.max(1, Number(years)) } }
}
