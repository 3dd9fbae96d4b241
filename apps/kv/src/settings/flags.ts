/**
 * Every flag of etcd 3.5 and 3.6, and what becomes of it here: `used`, `tuning` (accepted with a warning that says what happens
 * instead) or `refused` (it would change safety or meaning and is not supported). Flags that 3.6 freed of `experimental-` stand
 * here without it.
 */
export type Flag = {
  kind: 'string' | 'flag' | 'number' | 'duration'
  section: 'member' | 'cluster' | 'security' | 'observing' | 'kiln'
  help: string
  value?: string
} & (
  | { fate: 'used' }
  | { fate: 'tuning'; instead: string }
  /** `unless`: the value that means what we do anyway, and is accepted. */
  | { fate: 'refused'; why: string; unless?: string[] }
)

const used = (
  section: Flag['section'],
  kind: Flag['kind'],
  value: string | undefined,
  help: string,
): Flag => ({ fate: 'used', section, kind, value, help })

const tuning = (kind: Flag['kind'], instead: string): Flag => ({
  fate: 'tuning',
  section: 'member',
  kind,
  instead,
  help: `accepted: ${instead}`,
})

const refused = (kind: Flag['kind'], why: string, ...unless: string[]): Flag => ({
  fate: 'refused',
  section: 'member',
  kind,
  why,
  unless,
  help: `refused: ${why}`,
})

export const flags: Record<string, Flag> = {
  name: used('member', 'string', 'default', 'name of this member'),
  'data-dir': used('member', 'string', undefined, 'where log and snapshots are (default NAME.etcd)'),
  'snapshot-count': used('member', 'number', '10000', 'log entries between two snapshots'),
  'snapshot-catchup-entries': used(
    'member',
    'number',
    '5000',
    'entries kept behind a snapshot for members that lag',
  ),
  'heartbeat-interval': used('member', 'number', '100', 'milliseconds between heartbeats of the leader'),
  'election-timeout': used('member', 'number', '1000', 'milliseconds without a leader before an election'),
  'listen-peer-urls': used('member', 'string', 'http://localhost:2380', 'where other members reach this one'),
  'listen-client-urls': used('member', 'string', 'http://localhost:2379', 'where clients reach it'),
  'max-snapshots': used('member', 'number', '5', 'snapshot files kept'),
  'quota-backend-bytes': used('member', 'number', '0', 'size at which writes are refused; 0 is 2 GiB'),
  'max-txn-ops': used('member', 'number', '128', 'operations in a transaction'),
  'max-request-bytes': used('member', 'number', '1572864', 'largest request'),
  'max-concurrent-streams': used('member', 'number', '0', 'calls at once on a connection; 0 is 100000'),
  'grpc-keepalive-min-time': used('member', 'duration', '5s', 'pings of clients closer together are refused'),
  'grpc-keepalive-interval': used('member', 'duration', '2h', 'silence after which a client is pinged'),
  'grpc-keepalive-timeout': used('member', 'duration', '20s', 'wait for the answer to that ping'),
  'max-learners': used('member', 'number', '1', 'learners at once'),
  'warning-unary-request-duration': used('member', 'duration', '300ms', 'slower requests are logged'),
  'warning-apply-duration': used('member', 'duration', '100ms', 'slower batches of writes are logged'),
  'watch-progress-notify-interval': used(
    'member',
    'duration',
    '10m',
    'progress told to idle watchers that ask',
  ),
  'corrupt-check-time': used('member', 'duration', '0s', 'interval at which the leader compares members'),
  'initial-corrupt-check': used('member', 'flag', 'false', 'compare with the others before serving'),
  'auto-compaction-retention': used('member', 'string', '0', 'history kept; 0 is all of it'),
  'auto-compaction-mode': used('member', 'string', 'periodic', 'periodic or revision'),
  'compaction-batch-limit': used('member', 'number', '1000', 'revisions freed in one go'),
  'compaction-sleep-interval': used('member', 'duration', '10ms', 'pause between two batches'),

  'initial-advertise-peer-urls': used('cluster', 'string', 'http://localhost:2380', 'told to other members'),
  'initial-cluster': used('cluster', 'string', undefined, 'NAME=URL,... of all first members'),
  'initial-cluster-state': used('cluster', 'string', 'new', 'new or existing'),
  'initial-cluster-token': used('cluster', 'string', 'etcd-cluster', 'sets clusters apart'),
  'advertise-client-urls': used('cluster', 'string', 'http://localhost:2379', 'told to clients'),

  'enable-grpc-gateway': used('cluster', 'flag', 'true', 'the JSON form of the API below /v3/'),
  'listen-client-http-urls': used(
    'cluster',
    'string',
    '',
    'where HTTP is; listen-client-urls is then gRPC alone',
  ),
  'discovery-token': used(
    'cluster',
    'string',
    '',
    'name under which first members find each other elsewhere',
  ),
  'discovery-endpoints': used('cluster', 'string', '', 'URLs of the running cluster where they do'),
  'discovery-request-timeout': used('cluster', 'duration', '5s', 'wait for an answer of that cluster'),
  'discovery-cacert': used('cluster', 'string', '', 'CA of that cluster'),
  'discovery-cert': used('cluster', 'string', '', 'certificate shown to it'),
  'discovery-key': used('cluster', 'string', '', 'its key'),
  'discovery-srv': used('cluster', 'string', '', 'domain whose SRV records name the first members'),
  'discovery-srv-name': used('cluster', 'string', '', 'suffix of the service in those records'),

  cors: used('security', 'string', '*', 'origins that browsers may ask from'),
  'host-whitelist': used('security', 'string', '*', 'host names that requests without TLS may use'),
  'cert-file': used('security', 'string', '', 'certificate for clients'),
  'key-file': used('security', 'string', '', 'its key'),
  'client-cert-auth': used('security', 'flag', 'false', 'clients need a certificate'),
  'client-crl-file': used('security', 'string', '', 'revoked client certificates'),
  'trusted-ca-file': used('security', 'string', '', 'CA of client certificates'),
  'peer-cert-file': used('security', 'string', '', 'certificate for other members'),
  'peer-key-file': used('security', 'string', '', 'its key'),
  'peer-client-cert-auth': used('security', 'flag', 'false', 'other members need a certificate'),
  'peer-trusted-ca-file': used('security', 'string', '', 'CA of member certificates'),
  'peer-crl-file': used('security', 'string', '', 'revoked member certificates'),
  'auto-tls': used('security', 'flag', 'false', 'make a certificate for clients'),
  'peer-auto-tls': used('security', 'flag', 'false', 'make a certificate for other members'),
  'self-signed-cert-validity': used(
    'security',
    'number',
    '1',
    'years that a certificate made here is good for',
  ),
  'client-cert-allowed-hostname': used('security', 'string', '', 'name that client certificates must have'),
  'peer-cert-allowed-cn': used('security', 'string', '', 'common names that member certificates may have'),
  'peer-cert-allowed-hostname': used(
    'security',
    'string',
    '',
    'names of which member certificates must have one',
  ),
  'tls-min-version': used('security', 'string', 'TLS1.2', 'TLS1.2 or TLS1.3'),
  'tls-max-version': used('security', 'string', '', 'TLS1.2 or TLS1.3'),
  'cipher-suites': used('security', 'string', '', 'ciphers below TLS 1.3, by the names that Go has for them'),
  'peer-client-cert-file': used('security', 'string', '', 'certificate shown to other members'),
  'peer-client-key-file': used('security', 'string', '', 'its key'),

  'auth-token': used('security', 'string', 'simple', 'simple, or jwt,pub-key=,priv-key=,sign-method=,ttl='),
  'auth-token-ttl': used('security', 'number', '300', 'seconds without use that a simple token lives'),
  'bcrypt-cost': used('security', 'number', '10', 'strength of password hashes, 4 to 31'),

  'log-level': used('observing', 'string', 'info', 'debug, info, warn or error'),
  'listen-metrics-urls': used('observing', 'string', '', 'more places for /metrics and /health'),
  metrics: used('observing', 'string', 'basic', 'basic or extensive'),
  'enable-pprof': used('observing', 'flag', 'false', 'profiles of this process below /debug/pprof'),

  'force-new-cluster': used(
    'cluster',
    'flag',
    'false',
    'remove all other members, if the majority is lost for good',
  ),
  'lease-reads': used(
    'kiln',
    'flag',
    'false',
    'a leader serves reads alone for up to half an election timeout; all members alike',
  ),
  'store-upgrade-delay': used(
    'kiln',
    'duration',
    '10m',
    'how long all members run a new program before the version of the store is raised',
  ),
  wire: used(
    'kiln',
    'string',
    'kiln',
    'kiln, or grpc-js to cross-check the engine: gRPC alone on the client URLs',
  ),
  'values-in-memory': used(
    'kiln',
    'string',
    '0',
    'memory for values, older ones go to a scratch file in data-dir: bytes, or with KiB, MiB, GiB; 0 is no bound',
  ),
  'auto-disarm': used('kiln', 'flag', 'false', 'end the NOSPACE alarm when there is space again'),
  'accept-damage': used('kiln', 'flag', 'false', 'start a single member whose newest log record is damaged'),

  'wal-dir': refused('string', 'the log is below data-dir', ''),
  'unsafe-no-fsync': refused('flag', 'every write is synced', 'false'),
  'pre-vote': refused('flag', 'pre-vote is always on', 'true'),
  'enable-v2': refused('flag', 'there is no v2 API', 'false'),
  'experimental-enable-v2v3': refused('string', 'there is no v2 API', ''),
  discovery: refused('string', 'the v2 discovery service is not supported', ''),
  'discovery-proxy': refused('string', 'the v2 discovery service is not supported', ''),
  'discovery-fallback': refused('string', 'the v2 discovery service is not supported', '', 'exit', 'proxy'),
  proxy: refused('string', 'there is no proxy mode', 'off'),
  'peer-skip-client-san-verification': refused('flag', 'names are not checked', 'false', 'true'),
  'compact-hash-check-enabled': refused('flag', 'corrupt-check-time compares members', 'false'),
  'discovery-user': refused('string', 'the discovery cluster is asked without a user', ''),
  'discovery-password': refused('string', 'the discovery cluster is asked without a user', ''),
  'discovery-insecure-skip-tls-verify': refused(
    'flag',
    'the discovery cluster has to prove who it is',
    'false',
  ),
  'v2-deprecation': refused(
    'string',
    'there is no v2 store',
    'not-yet',
    'write-only',
    'write-only-drop-data',
    'gone',
  ),

  'strict-reconfig-check': tuning('flag', 'changes that may lose the quorum are always refused'),
  'client-cert-file': tuning('string', 'the gateway calls the store without a connection'),
  'client-key-file': tuning('string', 'the gateway calls the store without a connection'),
  'initial-election-tick-advance': tuning('flag', 'elections keep their time'),
  'max-wals': tuning('number', 'log segments are reused'),
  'backend-bbolt-freelist-type': tuning('string', 'there is no bbolt file'),
  'backend-batch-interval': tuning('duration', 'each turn of the event loop is a batch'),
  'backend-batch-limit': tuning('number', 'each turn of the event loop is a batch'),
  'socket-reuse-port': tuning('flag', 'the port is this process’s alone'),
  'socket-reuse-address': tuning('flag', 'addresses are always reused'),
  logger: tuning('string', 'logs are JSON lines on stderr'),
  'log-format': tuning('string', 'logs are JSON lines on stderr'),
  'log-outputs': tuning('string', 'logs are JSON lines on stderr'),
  'enable-log-rotation': tuning('flag', 'the journal keeps the logs'),
  'log-rotation-config-json': tuning('string', 'the journal keeps the logs'),
  'proxy-failure-wait': tuning('number', 'there is no proxy mode'),
  'proxy-refresh-interval': tuning('number', 'there is no proxy mode'),
  'proxy-dial-timeout': tuning('number', 'there is no proxy mode'),
  'proxy-write-timeout': tuning('number', 'there is no proxy mode'),
  'proxy-read-timeout': tuning('number', 'there is no proxy mode'),
  'enable-lease-checkpoint': tuning('flag', 'leases are always checkpointed'),
  'enable-lease-checkpoint-persist': tuning('flag', 'leases are always checkpointed'),
  'compact-hash-check-time': tuning('duration', 'corrupt-check-time compares members'),
  'downgrade-check-time': tuning('duration', 'a downgrade is looked at when it is asked for'),
  'discovery-dial-timeout': tuning('duration', 'connections to the discovery cluster are as to any other'),
  'discovery-keepalive-time': tuning('duration', 'connections to the discovery cluster are as to any other'),
  'discovery-keepalive-timeout': tuning(
    'duration',
    'connections to the discovery cluster are as to any other',
  ),
  'discovery-insecure-transport': tuning('flag', 'the URLs of the discovery cluster say it'),
  'feature-gates': tuning('string', 'what etcd gates is always on here, or refused by its own flag'),
  'set-member-localaddr': tuning('flag', 'the system picks the local address'),
  'txn-mode-write-with-shared-buffer': tuning('flag', 'there are no such buffers'),
  'memory-mlock': tuning('flag', 'memory is not locked'),
  'bootstrap-defrag-threshold-megabytes': tuning('number', 'there is nothing to defragment'),
  'stop-grpc-service-on-defrag': tuning('flag', 'a defragmentation does not stop the service'),
  'wait-cluster-ready-timeout': tuning('duration', 'it waits for the cluster as long as it takes'),
  'enable-distributed-tracing': refused('flag', 'there is no tracing', 'false'),
  'distributed-tracing-address': tuning('string', 'there is no tracing'),
  'distributed-tracing-service-name': tuning('string', 'there is no tracing'),
  'distributed-tracing-instance-id': tuning('string', 'there is no tracing'),
  'distributed-tracing-sampling-rate': tuning('number', 'there is no tracing'),
}

/** A flag by any of its names: `experimental-foo` of 3.5 is `foo` of 3.6. */
export function flagName(given: string): string | undefined {
  if (flags[given]) return given
  const plain = given.replace(/^experimental-/, '')
  return flags[plain] ? plain : undefined
}

const sectionTitles: Record<Flag['section'], string> = {
  member: 'Member',
  cluster: 'Clustering',
  security: 'Security',
  observing: 'Logging and metrics',
  kiln: 'Kiln',
}

/** What `--help` prints. */
export function helpText(): string {
  const lines = [
    'kiln-kv: a store that speaks the etcd v3 API. Flags, ETCD_* variables and the YAML file are those of etcd 3.5 and 3.6.',
    '',
    '  --config-file FILE   YAML settings; flags and variables are then not looked at',
    '  --version            print the version',
    '  --help               print this',
  ]
  for (const [section, title] of Object.entries(sectionTitles)) {
    lines.push('', `${title}:`)
    for (const [name, flag] of Object.entries(flags)) {
      if (flag.section !== section || flag.fate !== 'used') continue
      const left = flag.kind === 'flag' ? `--${name}` : `--${name} ${flag.value ? `'${flag.value}'` : "''"}`
      lines.push(`  ${left.padEnd(52)} ${flag.help}`)
    }
  }
  const rest = Object.entries(flags)
  const names = (fate: Flag['fate']): string =>
    rest
      .filter(([, flag]) => flag.fate === fate)
      .map(([name]) => `--${name}`)
      .join(' ')
  lines.push('', 'Accepted without effect, with a warning:', `  ${names('tuning')}`)
  lines.push('', 'Refused unless at their default:', `  ${names('refused')}`, '')
  return lines.join('\n')
}
