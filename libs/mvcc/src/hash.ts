import { crc32c } from './castagnoli.ts'
import { accepted, type Outcome, refused } from './errors.ts'
import { checkRevision } from './read.ts'
import type { Slices } from './slices.ts'
import type { MvccStore } from './store.ts'
import { ValueFetch } from './value-memory.ts'
import { encodeKeyValue, pinStore, revisionKey } from './version.ts'

export type StoreHash = { hash: number; compactRevision: number; hashRevision: number; revision: number }

/** Records hashed before the caller gets a chance to do something else. */
const sliceRecords = 4096
const hashStart = crc32c(Buffer.from('key'))

/**
 * etcd's HashKV: CRC-32C over the bucket's name and all versions up to `revision` (0: current) as etcd stores them, so that
 * a real etcd with the same history answers the same (kv.md section 7). A deletion that only the last compaction kept is
 * left out, as etcd's index has it no more. Yields between slices; the state hashed is that of the first call.
 */
export function* hashSlices(store: MvccStore, revision: number): Slices<Outcome<StoreHash>> {
  const refusal = checkRevision(store, revision)
  if (refusal) return refused(refusal)
  const { compactRevision } = store
  const hashRevision = revision > 0 ? revision : store.revision
  const answer = { compactRevision, hashRevision, revision: store.revision }
  let hash = hashStart
  let left = sliceRecords
  for (const version of pinStore(store).walks[0]!) {
    if (version instanceof ValueFetch) {
      yield version
      continue
    }
    if (version.revision > hashRevision) break
    if (version.version > 0 || version.revision > compactRevision) {
      hash = crc32c(encodeKeyValue(version), crc32c(revisionKey(version), hash))
    }
    if (--left > 0) continue
    left = sliceRecords
    yield
  }
  return accepted({ hash, ...answer })
}
