import { type Entry, entryHeaderBytes, type HardState, readEntry, writeEntry } from '@kiln/raft'

/**
 * The payload of a batch: records, each a kind byte and its content.
 * - 1 state: term f64, vote u64, commit f64
 * - 2 entry, as in messages; it cuts off what the log had from its index on
 * - 3 origin: index f64, term f64; the log starts over after an installed snapshot
 */
export type Record =
  | { kind: 'state'; state: HardState }
  | { kind: 'entry'; entry: Entry }
  | { kind: 'origin'; index: number; term: number }

/** What one write says. */
export type Batch = {
  origin?: { index: number; term: number } | undefined
  entries: readonly Entry[]
  hardState?: HardState | undefined
}

export function batchBytes(batch: Batch): number {
  let bytes = (batch.origin ? 17 : 0) + (batch.hardState ? 25 : 0)
  for (const entry of batch.entries) bytes += entryRecordBytes(entry)
  return bytes
}

export function entryRecordBytes(entry: Entry): number {
  return 1 + entryHeaderBytes + entry.data.length
}

/** Writes a batch at `at` and returns where the next goes. */
export function encodeBatch(batch: Batch, target: Uint8Array, at: number): number {
  const view = new DataView(target.buffer, target.byteOffset, target.length)
  if (batch.origin) {
    target[at] = 3
    view.setFloat64(at + 1, batch.origin.index, true)
    view.setFloat64(at + 9, batch.origin.term, true)
    at += 17
  }
  for (const entry of batch.entries) {
    target[at] = 2
    at = writeEntry(target, view, at + 1, entry)
  }
  if (batch.hardState) {
    target[at] = 1
    view.setFloat64(at + 1, batch.hardState.term, true)
    view.setBigUint64(at + 9, batch.hardState.vote, true)
    view.setFloat64(at + 17, batch.hardState.commit, true)
    at += 25
  }
  return at
}

/** Throws if the payload, whose CRC was right, is not what we write. */
export function decodeRecords(payload: Uint8Array): Record[] {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length)
  const records: Record[] = []
  for (let at = 0; at < payload.length; ) {
    const kind = payload[at]
    if (kind === 1) {
      const state = {
        term: view.getFloat64(at + 1, true),
        vote: view.getBigUint64(at + 9, true),
        commit: view.getFloat64(at + 17, true),
      }
      records.push({ kind: 'state', state })
      at += 25
    } else if (kind === 2) {
      const { entry, next } = readEntry(payload, view, at + 1)
      records.push({ kind: 'entry', entry })
      at = next
    } else if (kind === 3) {
      const index = view.getFloat64(at + 1, true)
      records.push({ kind: 'origin', index, term: view.getFloat64(at + 9, true) })
      at += 17
    } else {
      throw new Error(`a record has the unknown kind ${kind}`)
    }
  }
  return records
}
