import { type Database, openDatabase } from '@kiln/bbolt'
import * as kv from '@kiln/etcd-api/mvcc'
import { type AuthState, parseRevisionKey, type Version } from '@kiln/mvcc'
import { Fault } from '@kiln/service'
import type { Alarm } from '../state/alarm-book.ts'
import { parseAlarm, parseLease, parseRole, parseUser } from './schema.ts'
import type { SnapshotFile } from './snapshot-file.ts'

/** What of an etcd database a store is made of. */
export type SnapshotContent = {
  revision: number
  /** -1: never compacted. */
  compactRevision: number
  count: number
  leases: { id: bigint; ttl: number; remainingTtl: number }[]
  alarms: Alarm[]
  auth: AuthState
  /** All versions in the order of revisions; each walk reads the file again. */
  versions(): AsyncGenerator<Version, void>
}

const leasesMax = 10_000_000

/** Reads an etcd database, our own or etcd's: checks all of it, keeps everything but the versions in memory. */
export async function readContent(file: SnapshotFile): Promise<SnapshotContent> {
  const database = await openDatabase(file)
  const meta = await readMap(database, 'meta')
  // etcd finishes a compaction that was scheduled when it starts; nothing below it may be read either way.
  const compactRevision = Math.max(
    revisionIn(meta.get('scheduledCompactRev')),
    revisionIn(meta.get('finishedCompactRev')),
  )
  const leases: SnapshotContent['leases'] = []
  for await (const { value } of entriesOf(database, 'lease')) {
    if (leases.length === leasesMax) throw new Fault('STORE_SNAPSHOT_BAD', `more than ${leasesMax} leases`)
    leases.push(parseLease(value))
  }
  const alarms: Alarm[] = []
  for await (const { key } of entriesOf(database, 'alarm')) {
    const alarm = parseAlarm(key)
    if (alarm) alarms.push(alarm)
  }
  const auth = await readAuth(database)
  let count = 0
  let revision = Math.max(1, compactRevision)
  for await (const version of versionsOf(database)) {
    revision = Math.max(revision, version.revision)
    if (version.key.length > 0) count++
  }
  return {
    revision,
    compactRevision,
    count,
    leases,
    alarms,
    auth,
    versions: async function* () {
      for await (const version of versionsOf(database)) if (version.key.length > 0) yield version
    },
  }
}

/** Users and roles; without them a restored store would be open to everybody. */
async function readAuth(database: Database): Promise<AuthState> {
  const found = await readMap(database, 'auth')
  const revision = found.get('authRevision')
  const state: AuthState = {
    enabled: found.get('authEnabled')?.[0] === 1,
    revision: revision?.length === 8 ? Number(revision.readBigUInt64BE()) : 1,
    users: [],
    roles: [],
  }
  try {
    for await (const { value } of entriesOf(database, 'authUsers')) state.users.push(parseUser(value))
    for await (const { value } of entriesOf(database, 'authRoles')) state.roles.push(parseRole(value))
  } catch (cause) {
    throw new Fault('STORE_SNAPSHOT_BAD', 'a user or role cannot be decoded', { cause })
  }
  return state
}

async function* entriesOf(database: Database, name: string) {
  const bucket = (await database.buckets()).find((each) => each.name.toString() === name)
  if (bucket) yield* bucket.entries()
}

async function readMap(database: Database, name: string): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>()
  for await (const { key, value } of entriesOf(database, name)) found.set(key.toString(), Buffer.from(value))
  return found
}

const revisionIn = (bytes: Buffer | undefined): number =>
  bytes === undefined ? -1 : (parseRevisionKey(bytes)?.revision ?? -1)

/** A version without a key is what `--bump-revision` of etcdutl leaves: it only holds the revision. */
async function* versionsOf(database: Database): AsyncGenerator<Version, void> {
  for await (const { key, value } of entriesOf(database, 'key')) {
    const place = parseRevisionKey(key)
    if (!place) throw new Fault('STORE_SNAPSHOT_BAD', `the key bucket has ${key.toString('hex')} in it`)
    const pair = decodePair(value, place.revision)
    const isSound = place.isDeletion || pair.key.length === 0 || pair.modRevision === BigInt(place.revision)
    if (!isSound || (place.isDeletion && pair.key.length === 0)) {
      throw new Fault('STORE_SNAPSHOT_BAD', `the version at revision ${place.revision} is of another one`)
    }
    yield {
      key: pair.key,
      value: place.isDeletion ? new Uint8Array(0) : pair.value,
      revision: place.revision,
      sub: place.sub,
      createRevision: place.isDeletion ? 0 : Number(pair.createRevision),
      version: place.isDeletion ? 0 : Number(pair.version),
      lease: place.isDeletion ? 0n : pair.lease,
    }
  }
}

function decodePair(value: Buffer, revision: number): kv.KeyValue {
  try {
    return kv.KeyValue.decode(value)
  } catch (cause) {
    throw new Fault('STORE_SNAPSHOT_BAD', `the version at revision ${revision} cannot be decoded`, { cause })
  }
}
