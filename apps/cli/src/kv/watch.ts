import { spawn } from 'node:child_process'
import type { StoreEntry, WatchEvent } from '@kiln/etcd-api'
import { Fault } from '@kiln/service'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import { line, type RangeFlags, rangeOf } from './keys.ts'
import type { KvPorts } from './ports.ts'
import { leaf, type Session } from './session.ts'
import { milliseconds } from './settings.ts'
import { base64, hex, safeText, wholeBigint } from './text.ts'

type WatchFlags = RangeFlags & {
  rev?: string
  since?: string
  prevKv?: boolean
  events?: string
  exec?: string
}

/** `kiln kv watch`. */
export function addWatchCommand(kv: Command, ports: KvPorts): void {
  leaf(
    kv
      .command('watch')
      .description('print changes as they happen, over lost connections and leader changes, until Ctrl-C')
      .argument('<key>')
      .argument('[range-end]', 'first key behind the range')
      .option('--prefix', 'all keys that begin with it')
      .option('--from-key', 'all keys from it on')
      .option('--rev <n>', 'the first revision wanted; without, what happens from now on')
      .option(
        '--since <time>',
        'what happened since then, at most a second of it too much: 2026-11-26T12:00:00Z, or 10m ago (not with etcd)',
      )
      .option('--prev-kv', 'print what was before, too')
      .option('--events <n>', 'end after so many')
      .option('--exec <command>', 'run this for each event, with ETCD_WATCH_* of etcdctl in its environment'),
    ports,
    watch,
  )
}

async function watch(session: Session, args: string[], flags: WatchFlags): Promise<void> {
  const { ports, store } = session
  const { key, rangeEnd } = rangeOf(session, args, flags)
  let left = flags.events === undefined ? Number.POSITIVE_INFINITY : Number(wholeBigint(flags.events))
  const startRevision = await firstRevision(session, flags)
  const outcomes = store.watch(key, {
    ...(rangeEnd.length === 0 ? { exact: true } : { rangeEnd }),
    ...(startRevision === undefined ? {} : { startRevision }),
    previous: flags.prevKv === true,
    signal: ports.signal,
    onTrouble: (fault) => ports.note(`${fault.message}; going on`),
  })
  for await (const outcome of outcomes) {
    if (outcome.kind === 'compacted')
      throw new Fault(
        'STORE_COMPACTED',
        `watch ${args[0]}: everything below revision ${outcome.compactRevision} was compacted`,
        {
          remedy: `--rev ${outcome.compactRevision}, and read what there is`,
        },
      )
    const events = outcome.events.slice(0, left)
    left -= events.length
    if (session.format === 'json') session.json({ events: events.map(eventJson) })
    else for (const event of events) printEvent(session, event)
    if (flags.exec !== undefined) for (const event of events) await run(flags.exec, event, ports)
    if (left <= 0) return
  }
}

async function firstRevision(session: Session, { rev, since }: WatchFlags): Promise<bigint | undefined> {
  if (since === undefined) return rev === undefined ? undefined : wholeBigint(rev)
  if (rev !== undefined)
    throw new Fault('USAGE', '--rev and --since both say where to begin', { remedy: 'give one of them' })
  const request = { timeMs: BigInt(sinceMs(since, Date.now())) }
  const answer = await session.call(calls.revisionAt, request, `find the revision of ${since}`)
  return answer.revision + 1n
}

/** Milliseconds since 1970 of a date with its time zone, or of a duration before `now`. */
function sinceMs(text: string, now: number): number {
  const isDate = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/.test(text)
  const time = isDate ? Date.parse(text) : now - milliseconds(text)
  if (Number.isNaN(time)) throw new Fault('USAGE', `${text} is no date of any calendar`)
  return Math.max(0, Math.round(time))
}

function printEvent(session: Session, event: WatchEvent): void {
  const { previous } = event
  const key = event.kind === 'put' ? event.entry.keyBytes : event.keyBytes
  session.ports.print(event.kind === 'put' ? 'PUT' : 'DELETE')
  if (previous) {
    line(session, previous.keyBytes)
    line(session, previous.value)
  }
  line(session, key)
  if (event.kind === 'put') line(session, event.entry.value)
}

type Json = Record<string, string>

function eventJson(event: WatchEvent): Record<string, string | Json> {
  const kv =
    event.kind === 'put'
      ? entryJson(event.entry)
      : { key: base64(event.keyBytes), mod_revision: event.modRevision.toString() }
  const json: Record<string, string | Json> = { type: event.kind === 'put' ? 'PUT' : 'DELETE', kv }
  if (event.previous !== undefined) json['prev_kv'] = entryJson(event.previous)
  return json
}

function entryJson(entry: StoreEntry): Json {
  return {
    key: base64(entry.keyBytes),
    create_revision: entry.createRevision.toString(),
    mod_revision: entry.modRevision.toString(),
    version: entry.version.toString(),
    value: base64(entry.value),
    ...(entry.lease === 0n ? {} : { lease: entry.lease.toString(), lease_hex: hex(entry.lease) }),
  }
}

function run(command: string, event: WatchEvent, ports: KvPorts): Promise<void> {
  const quoted = (bytes: Uint8Array): string => `"${safeText(bytes).replaceAll('"', '\\"')}"`
  const key = event.kind === 'put' ? event.entry.keyBytes : event.keyBytes
  const env = {
    ...ports.environment,
    ETCD_WATCH_REVISION: (event.kind === 'put' ? event.entry.modRevision : event.modRevision).toString(),
    ETCD_WATCH_EVENT_TYPE: `"${event.kind === 'put' ? 'PUT' : 'DELETE'}"`,
    ETCD_WATCH_KEY: quoted(key),
    ETCD_WATCH_VALUE: event.kind === 'put' ? quoted(event.entry.value) : '""',
  }
  return new Promise((resolve, reject) => {
    const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 'inherit', 'inherit'], env })
    const stop = (): void => void child.kill('SIGTERM')
    ports.signal.addEventListener('abort', stop, { once: true })
    child.once('error', (cause) =>
      reject(new Fault('PROGRAM_MISSING', '/bin/sh cannot be started', { cause })),
    )
    child.once('exit', () => {
      ports.signal.removeEventListener('abort', stop)
      resolve()
    })
  })
}
