import type { BucketEntry, BucketSource } from '@kiln/bbolt'
import {
  type AuthState,
  encodeKeyValue,
  keyValueBytes,
  type PinnedStore,
  revisionKey,
  ValueFetch,
  type Version,
} from '@kiln/mvcc'
import { assert } from '@kiln/service'
import { clusterVersion } from '../api/maintenance-service.ts'
import type { Member } from '../consensus/types.ts'
import type { Alarm } from '../state/alarm-book.ts'
import {
  alarmEntry,
  authEntries,
  type BucketName,
  buckets,
  confState,
  entry,
  leaseEntry,
  memberEntry,
  uint64,
} from './schema.ts'

/** What a database holds: the store pinned for as many walks as it will be read, and what stands beside it. */
export type DatabaseContent = {
  store: PinnedStore
  alarms: readonly Alarm[]
  members: readonly Member[]
  appliedIndex: number
  appliedTerm: number
  auth: AuthState
}

/**
 * The store in etcd 3.5's schema. There is no storageVersion in it: that is 3.6's, which reads 3.5's by the term and the
 * confState beside the index.
 */
export function databaseOf(content: DatabaseContent): BucketSource<ValueFetch>[] {
  const { store, members } = content
  const compacted = store.compactRevision > 0 ? store.compactRevision : undefined
  const revision =
    compacted === undefined ? undefined : revisionKey({ revision: compacted, sub: 0, version: 1 })
  const small: Record<Exclude<BucketName, 'key'>, BucketEntry[]> = {
    ...authEntries(content.auth),
    alarm: content.alarms.map(alarmEntry),
    cluster: [
      entry('clusterVersion', clusterVersion),
      entry('downgrade', '{"target-version":"","enabled":false}'),
    ],
    lease: store.leases.map(leaseEntry),
    members: members.map(memberEntry),
    members_removed: [],
    meta: [
      entry('confState', confState(members)),
      entry('consistent_index', uint64(content.appliedIndex)),
      entry('term', uint64(content.appliedTerm)),
      ...(revision ? [entry('finishedCompactRev', revision), entry('scheduledCompactRev', revision)] : []),
    ],
  }
  for (const entries of Object.values(small)) entries.sort((a, b) => Buffer.compare(a.key, b.key))
  let walk = 0
  return buckets.map((name) => {
    if (name !== 'key') return { name, entries: () => small[name] }
    return {
      name,
      entries: () => {
        const versions = store.walks[walk++]
        assert(versions !== undefined, 'a database is read no more often than it was pinned for')
        return keyEntries(versions, store)
      },
    }
  })
}

function* keyEntries(
  versions: Iterable<Version | ValueFetch>,
  store: PinnedStore,
): Generator<BucketEntry | ValueFetch, void> {
  let last = 0
  for (const version of versions) {
    if (version instanceof ValueFetch) {
      yield version
      continue
    }
    last = version.revision
    yield {
      key: revisionKey(version),
      valueBytes: keyValueBytes(version),
      value: () => encodeKeyValue(version),
    }
  }
  // A revision that was only reached by bumping it is kept as etcd keeps it: as a version without a key.
  const { revision } = store
  if (revision > Math.max(last, store.compactRevision, 1)) {
    yield entry(revisionKey({ revision, sub: 0, version: 1 }), '')
  }
}
