import { toText } from './bytes.ts'
import type { KeyValue } from './generated/mvcc.ts'

/** A key with its value as of one revision. */
export type StoreEntry = {
  readonly key: string
  /** The key as it is, whether it is UTF-8 or not. */
  readonly keyBytes: Uint8Array
  readonly value: Uint8Array
  /** The value as UTF-8. */
  readonly text: string
  readonly createRevision: bigint
  /** What `compareAndSwap` wants to know. */
  readonly modRevision: bigint
  readonly version: bigint
  /** 0 for none. */
  readonly lease: bigint
}

export function storeEntry(pair: KeyValue): StoreEntry {
  const { value, createRevision, modRevision, version, lease } = pair
  return {
    key: toText(pair.key),
    keyBytes: pair.key,
    value,
    get text() {
      return toText(value)
    },
    createRevision,
    modRevision,
    version,
    lease,
  }
}
