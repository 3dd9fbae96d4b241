/** How the store cuts its data. The defaults suit millions of keys; tests take tiny ones, so that every border is met. */
export type StoreSizes = {
  /** Versions in a chunk of columns. */
  chunkRecords: number
  /** Bytes of keys or values that are allocated together; a larger one gets its own. */
  slabBytes: number
  /** Keys in a leaf of the index before it is split; an insert moves at most this many places. */
  leafKeys: number
  /** Keys or versions looked at before a sliced operation lets others run. */
  sliceRecords: number
}

export const defaultSizes: StoreSizes = {
  chunkRecords: 1024,
  slabBytes: 256 * 1024,
  leafKeys: 512,
  sliceRecords: 1000,
}
