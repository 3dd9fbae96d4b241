export type { AttachedKeys, Demand } from './auth/access.ts'
export { AuthBook } from './auth/auth-book.ts'
export { authRefusals } from './auth/auth-refusals.ts'
export {
  type AuthChange,
  type AuthState,
  type Identity,
  type Permission,
  type PermissionType,
  type Role,
  rootName,
  type User,
} from './auth/auth-types.ts'
export { crc32c } from './castagnoli.ts'
export type { RecordFields } from './chunk.ts'
export { accepted, type Outcome, type Refusal, refusals, refused } from './errors.ts'
export { hashSlices, type StoreHash } from './hash.ts'
export type { PinnedRecord } from './history.ts'
export {
  type Change,
  checkHistory,
  type DeletedKey,
  type DeletedRequest,
  type Difference,
  type DiffRequest,
  historyRefusals,
  type RestoreRequest,
  type RevisionsRequest,
  readDeleted,
  readDiff,
  readRevisions,
} from './history-read.ts'
export { fromKey, type Key, toKey } from './key.ts'
export { type Lease, LeaseBook, leaseTtlMax } from './lease-book.ts'
export { LeaseClock } from './lease-clock.ts'
export type * from './requests.ts'
export { defaultSizes, type StoreSizes } from './sizes.ts'
export { inOnePiece, type Slices } from './slices.ts'
export {
  encodeSnapshot,
  encodeSnapshotSlices,
  restoreSlices,
  restoreSnapshot,
  SnapshotDecoder,
  SnapshotEncoder,
  type SnapshotProblem,
  snapshotFormatVersion,
} from './snapshot.ts'
export { MvccStore } from './store.ts'
export { checkDelete, checkPut, checkRange, checkTxn, txnOpsMaxDefault } from './txn-check.ts'
export { type Slab, ValueFetch, type ValueMemory, type Want } from './value-memory.ts'
export {
  encodeKeyValue,
  keyValueBytes,
  type PinnedStore,
  parseRevisionKey,
  pinStore,
  revisionKey,
  type Version,
} from './version.ts'
export { WatchHub } from './watch-hub.ts'
export type { WatchFetch } from './watch-replayer.ts'
export {
  defaultWatchLimits,
  type LongSink,
  type WatchCreate,
  type WatchLimits,
  type WatchMessage,
  type WatchSink,
  type WatchStream,
} from './watcher.ts'
