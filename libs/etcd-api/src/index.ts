export { type Bytes, prefixEnd, prefixRange, toBytes, toText } from './bytes.ts'
export {
  type EndpointStatus,
  EtcdClient,
  type EtcdClientOptions,
  type GetOptions,
  type PrefixEntries,
  type StoreMember,
} from './client.ts'
export type { CallOf, ClientTls, ClientTlsSource, StoreUser } from './endpoints.ts'
export type { StoreEntry } from './entry.ts'
export type { HeldLease, HoldLeaseOptions } from './lease.ts'
export type { Method } from './methods.ts'
export { scanPrefix } from './scan.ts'
export type { SnapshotPart } from './snapshot.ts'
export type { CompareOperator, Comparison, Operation, OperationResult } from './txn.ts'
export type { Watch, WatchEvent, WatchOptions, WatchOutcome } from './watch.ts'
