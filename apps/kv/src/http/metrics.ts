import { readdirSync, readFileSync } from 'node:fs'
import { version } from '@kiln/service'
import type { CallEnd } from '@kiln/wire'
import type { ServiceContext } from '../api/context.ts'
import { apiVersion, clusterVersion, sizeBytes } from '../api/maintenance-service.ts'
import type { WatchService } from '../api/watch-service.ts'
import { Histogram } from './histogram.ts'

const codeNames = [
  'OK',
  'Canceled',
  'Unknown',
  'InvalidArgument',
  'DeadlineExceeded',
  'NotFound',
  'AlreadyExists',
  'PermissionDenied',
  'ResourceExhausted',
  'FailedPrecondition',
  'Aborted',
  'OutOfRange',
  'Unimplemented',
  'Internal',
  'Unavailable',
  'DataLoss',
  'Unauthenticated',
]
/** Upper bounds in seconds, as gRPC's Go client library has them. */
const handlingBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

type Method = {
  /** `unary`, `server_stream` or `bidi_stream`. */
  type: string
  started: number
  handled: Map<number, number>
  received: number
  sent: number
  seconds: Histogram
}

/** Counts what the wire tells of calls. */
export class CallMetrics {
  readonly #methods = new Map<string, Method>()

  /** Methods of the API are there from the start, with zeroes: a rate needs a value before the first call. */
  register(methods: Iterable<{ path: string; kind: 'unary' | 'stream' }>): void {
    for (const { path, kind } of methods) {
      this.#methods.set(path, newMethod(path, kind, new Map(codeNames.map((_name, code) => [code, 0]))))
    }
  }

  onStart(path: string, kind: string): void {
    this.#method(path, kind).started++
  }

  onEnd({ path, kind, code, durationMs, messagesIn, messagesOut }: CallEnd): void {
    const method = this.#method(path, kind)
    method.handled.set(code, (method.handled.get(code) ?? 0) + 1)
    method.received += messagesIn
    method.sent += messagesOut
    method.seconds.observe(durationMs / 1000)
  }

  write(page: MetricsPage, isExtensive: boolean): void {
    for (const [path, method] of this.#methods) {
      const [, service = '', name = ''] = path.split('/')
      const labels = { grpc_method: name, grpc_service: service, grpc_type: method.type }
      page.add('grpc_server_started_total', 'counter', method.started, labels)
      page.add('grpc_server_msg_received_total', 'counter', method.received, labels)
      page.add('grpc_server_msg_sent_total', 'counter', method.sent, labels)
      for (const [code, count] of method.handled) {
        page.add('grpc_server_handled_total', 'counter', count, {
          grpc_code: codeNames[code] ?? `${code}`,
          ...labels,
        })
      }
      if (isExtensive) {
        page.histogram('grpc_server_handling_seconds', method.seconds, labels)
      }
    }
  }

  /** Paths come from clients: ones that are no method of ours are not kept. */
  #method(path: string, kind: string): Method {
    const known = this.#methods.get(path) ?? this.#methods.get(unknownPath)
    if (known) return known
    const method = newMethod(unknownPath, kind, new Map())
    this.#methods.set(unknownPath, method)
    return method
  }
}

const unknownPath = '/unknown/unknown'

function newMethod(path: string, kind: string, handled: Map<number, number>): Method {
  const seconds = new Histogram(handlingBuckets)
  return { type: typeOf(path, kind), started: 0, handled, received: 0, sent: 0, seconds }
}

/** Named here, since the descriptors that know it too are only read by who needs them. */
const serverStreams = new Set([
  '/etcdserverpb.Maintenance/Snapshot',
  '/v3electionpb.Election/Observe',
  '/grpc.health.v1.Health/Watch',
])

function typeOf(path: string, kind: string): string {
  if (kind === 'unary') return 'unary'
  return serverStreams.has(path) ? 'server_stream' : 'bidi_stream'
}

/** Text of the Prometheus exposition format, one family after the other. */
export class MetricsPage {
  readonly #families = new Map<string, string[]>()

  add(name: string, type: 'counter' | 'gauge', value: number, labels: Record<string, string> = {}): void {
    this.#lines(name, type).push(`${name}${labelText(labels)} ${value}`)
  }

  histogram(
    name: string,
    { bounds, counts, sum }: Pick<Histogram, 'bounds' | 'counts' | 'sum'>,
    labels: Record<string, string> = {},
  ): void {
    const lines = this.#lines(name, 'histogram')
    let total = 0
    for (const [at, count] of counts.entries()) {
      total += count
      const le = at < bounds.length ? String(bounds[at]) : '+Inf'
      lines.push(`${name}_bucket${labelText({ ...labels, le })} ${total}`)
    }
    lines.push(`${name}_sum${labelText(labels)} ${sum}`, `${name}_count${labelText(labels)} ${total}`)
  }

  toString(): string {
    return [...this.#families.values()].map((lines) => `${lines.join('\n')}\n`).join('')
  }

  #lines(name: string, type: string): string[] {
    let lines = this.#families.get(name)
    if (!lines) {
      lines = [`# TYPE ${name} ${type}`]
      this.#families.set(name, lines)
    }
    return lines
  }
}

function labelText(labels: Record<string, string>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${value.replace(/["\\\n]/g, '_')}"`)
  return pairs.length > 0 ? `{${pairs.join(',')}}` : ''
}

export type MetricsSources = {
  context: ServiceContext
  calls: CallMetrics
  watches: WatchService
  leaderChanges: () => number
  /** Bytes of clients' connections. */
  clientBytes: () => { bytesIn: number; bytesOut: number }
}

/** Files this process has open, and may have open. */
function descriptors(): { open: number; max: number } {
  const limits = readFileSync('/proc/self/limits', 'utf8')
  const max = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY)
  return { open: readdirSync('/proc/self/fd').length, max }
}

/** The page at `/metrics`: etcd's names for what is true here too. */
export function metricsPage({ context, calls, watches, leaderChanges, clientBytes }: MetricsSources): string {
  const { consensus, state, settings, measures } = context
  const status = consensus.status()
  const page = new MetricsPage()
  const gauge = (name: string, value: number): void => page.add(name, 'gauge', value)
  const counter = (name: string, value: number): void => page.add(name, 'counter', value)
  page.add('etcd_server_version', 'gauge', 1, { server_version: apiVersion })
  page.add('kiln_version', 'gauge', 1, { version })
  gauge('etcd_server_has_leader', status.leader === 0n ? 0 : 1)
  gauge('etcd_server_is_leader', status.role === 'leader' ? 1 : 0)
  gauge('etcd_server_is_learner', consensus.members().find(({ id }) => id === status.id)?.learner ? 1 : 0)
  counter('etcd_server_leader_changes_seen_total', leaderChanges())
  gauge('etcd_server_proposals_committed_total', status.committedIndex)
  gauge('etcd_server_proposals_applied_total', status.appliedIndex)
  gauge('etcd_server_proposals_pending', measures.proposalsPending)
  counter('etcd_server_proposals_failed_total', measures.proposalsFailed)
  counter('etcd_server_slow_apply_total', measures.slowApplies)
  counter('etcd_server_slow_read_indexes_total', measures.slowReads)
  counter('etcd_server_read_indexes_failed_total', measures.readsFailed)
  counter('etcd_server_health_success', measures.healthChecks.good)
  counter('etcd_server_health_failures', measures.healthChecks.bad)
  page.add('etcd_cluster_version', 'gauge', 1, { cluster_version: clusterVersion.replace(/\.\d+$/, '') })
  page.add('etcd_server_id', 'gauge', 1, { server_id: status.id.toString(16) })
  page.histogram('etcd_disk_wal_fsync_duration_seconds', measures.walSync)
  page.histogram('etcd_disk_backend_commit_duration_seconds', measures.commit)
  for (const [peer, histogram] of measures.roundTrips) {
    page.histogram('etcd_network_peer_round_trip_time_seconds', histogram, { To: peer.toString(16) })
  }
  const Local = status.id.toString(16)
  for (const { peer, connected, dropped, bytesIn, bytesOut } of measures.peers()) {
    const To = peer.toString(16)
    page.add('etcd_network_peer_sent_failures_total', 'counter', dropped, { To })
    page.add('etcd_network_peer_sent_bytes_total', 'counter', bytesOut, { To })
    page.add('etcd_network_peer_received_bytes_total', 'counter', bytesIn, { From: To })
    page.add('etcd_network_active_peers', 'gauge', connected ? 1 : 0, { Local, Remote: To })
  }
  gauge('etcd_network_known_peers', consensus.members().length - 1)
  const { bytesIn, bytesOut } = clientBytes()
  counter('etcd_network_client_grpc_received_bytes_total', bytesIn)
  counter('etcd_network_client_grpc_sent_bytes_total', bytesOut)
  gauge('etcd_server_quota_backend_bytes', settings.quotaBytes)
  gauge('etcd_mvcc_db_total_size_in_bytes', sizeBytes(context))
  gauge('etcd_mvcc_db_total_size_in_use_in_bytes', sizeBytes(context))
  const { counts } = state.store
  counter('etcd_mvcc_range_total', counts.ranges)
  counter('etcd_mvcc_put_total', counts.puts)
  counter('etcd_mvcc_delete_total', counts.deletes)
  counter('etcd_mvcc_txn_total', counts.txns)
  gauge('etcd_debugging_mvcc_total_put_size_in_bytes', counts.putBytes)
  counter('etcd_debugging_lease_granted_total', counts.leasesGranted)
  counter('etcd_debugging_lease_revoked_total', counts.leasesRevoked)
  gauge('etcd_debugging_mvcc_keys_total', state.store.index.size)
  gauge('etcd_debugging_mvcc_current_revision', state.store.revision)
  gauge('etcd_debugging_mvcc_compact_revision', state.store.compactRevision)
  gauge('etcd_debugging_mvcc_watcher_total', watches.hub.watcherCount)
  gauge('etcd_debugging_mvcc_watch_stream_total', watches.hub.streamCount)
  gauge('etcd_debugging_mvcc_slow_watcher_total', watches.hub.unsyncedCount)
  gauge('etcd_debugging_auth_revision', state.auth.revision)
  gauge('kiln_kv_store_version', state.version)
  gauge('kiln_kv_leases', state.store.leases.size)
  gauge('kiln_kv_wal_bytes', status.walBytes)
  const { memory } = state.store
  gauge('kiln_kv_values_memory_bytes', memory.memoryBytes)
  gauge('kiln_kv_values_disk_bytes', memory.outBytes)
  const values = measures.values()
  if (values) {
    gauge('kiln_kv_values_file_bytes', values.fileBytes)
    counter('kiln_kv_values_reads_total', values.reads)
    counter('kiln_kv_values_read_bytes_total', values.readBytes)
    counter('kiln_kv_values_moves_total', values.moves)
    counter('kiln_kv_values_move_failures_total', values.failures)
  }
  gauge('kiln_kv_disk_full', status.diskFull ? 1 : 0)
  gauge('process_resident_memory_bytes', process.memoryUsage.rss())
  const { open, max } = descriptors()
  gauge('process_open_fds', open)
  gauge('process_max_fds', max)
  gauge('os_fd_used', open)
  gauge('os_fd_limit', max)
  gauge('process_start_time_seconds', Math.round((performance.timeOrigin / 1000) * 1000) / 1000)
  counter('process_cpu_seconds_total', (process.cpuUsage().user + process.cpuUsage().system) / 1e6)
  calls.write(page, settings.extensiveMetrics)
  return page.toString()
}
