import { crc32 } from 'node:zlib'
import { accepted, type Outcome, refused } from './errors.ts'
import { checkRevision } from './read.ts'
import type { MvccStore } from './store.ts'

export type StoreHash = { hash: number; compactRevision: number; hashRevision: number; revision: number }

/** Records hashed before the caller gets a chance to do something else. */
const sliceRecords = 4096
const headBytes = 8 * 4 + 4

/**
 * CRC-32 over all versions up to `revision` (0: current): members with the same revision and compact revision answer
 * the same (kv.md section 7). Yields between slices; the state hashed is that of the first call.
 */
export function* hashSlices(store: MvccStore, revision: number): Generator<void, Outcome<StoreHash>> {
  const refusal = checkRevision(store, revision)
  if (refusal) return refused(refusal)
  const hashRevision = revision > 0 ? revision : store.revision
  const answer = { compactRevision: store.compactRevision, hashRevision, revision: store.revision }
  const head = Buffer.alloc(headBytes)
  let hash = crc32('kiln-hash-1')
  let left = sliceRecords
  for (const { fields, keyBytes, value } of store.versions()) {
    if (fields.revision > hashRevision) break
    head.writeDoubleLE(fields.revision, 0)
    head.writeDoubleLE(fields.createRevision, 8)
    head.writeDoubleLE(fields.version, 16)
    head.writeBigInt64LE(fields.lease, 24)
    head.writeUInt32LE(fields.sub, 32)
    hash = crc32(value, crc32(keyBytes, crc32(head, hash)))
    if (--left > 0) continue
    left = sliceRecords
    yield
  }
  return accepted({ hash, ...answer })
}
