import { assert } from './assert.ts'
import type { Entry } from './types.ts'

/**
 * The part of the log that is in memory: everything after `baseIndex`, whose term is `baseTerm`.
 * Invariant: stable <= last, unsaved > stable, entries are contiguous.
 */
export type Log = {
  baseIndex: number
  baseTerm: number
  entries: Entry[]
  /** Everything up to here is durable on this member. */
  stable: number
  /** First index not yet handed out to be written. */
  unsaved: number
  /** Acknowledgements of earlier writes say nothing: what they wrote was cut off since. */
  validFromSeq: number
}

export function createLog(base: { index: number; term: number }, entries: readonly Entry[]): Log {
  const log: Log = {
    baseIndex: base.index,
    baseTerm: base.term,
    entries: [...entries],
    stable: base.index + entries.length,
    unsaved: base.index + entries.length + 1,
    validFromSeq: 0,
  }
  entries.forEach((entry, at) => {
    assert(entry.index === base.index + 1 + at, 'recovered entries are contiguous')
  })
  return log
}

export function lastIndex(log: Log): number {
  return log.baseIndex + log.entries.length
}

export function lastTerm(log: Log): number {
  const last = log.entries[log.entries.length - 1]
  return last === undefined ? log.baseTerm : last.term
}

/** Undefined for what is compacted or not there yet. */
export function termAt(log: Log, index: number): number | undefined {
  if (index === log.baseIndex) return log.baseTerm
  return log.entries[index - log.baseIndex - 1]?.term
}

export function matches(log: Log, index: number, term: number): boolean {
  return termAt(log, index) === term
}

/** Whether a log that ends with this entry may lead us (Raft paper, section 5.4.1). */
export function isUpToDate(log: Log, other: { lastIndex: number; lastTerm: number }): boolean {
  const term = lastTerm(log)
  return other.lastTerm > term || (other.lastTerm === term && other.lastIndex >= lastIndex(log))
}

/** Entries `from` to `to`, both inclusive, at least one and then at most `bytesMax`. */
export function sliceEntries(log: Log, from: number, to: number, bytesMax: number): Entry[] {
  const start = from - log.baseIndex - 1
  assert(start >= 0, 'a slice starts after the base of the log')
  const end = Math.min(to, lastIndex(log)) - log.baseIndex
  let bytes = 0
  let at = start
  for (; at < end; at++) {
    bytes += entryBytes(log.entries[at]!)
    if (bytes > bytesMax && at > start) break
  }
  return log.entries.slice(start, at)
}

export function appendEntries(log: Log, entries: readonly Entry[]): void {
  for (const entry of entries) {
    assert(entry.index === lastIndex(log) + 1, 'appended entries are contiguous')
    log.entries.push(entry)
  }
}

/**
 * Removes everything from `index` on. `nextSeq` is the number of the next write: only from that one on do
 * acknowledgements describe this log (an entry may come back with its old index and term after being overwritten).
 */
export function truncateFrom(log: Log, index: number, nextSeq: number): void {
  log.entries.length = index - log.baseIndex - 1
  log.stable = Math.min(log.stable, index - 1)
  log.unsaved = Math.min(log.unsaved, index)
  log.validFromSeq = nextSeq
}

/** Starts over after an installed snapshot. */
export function resetLog(log: Log, base: { index: number; term: number }, nextSeq: number): void {
  log.baseIndex = base.index
  log.baseTerm = base.term
  log.entries = []
  log.stable = base.index
  log.unsaved = base.index + 1
  log.validFromSeq = nextSeq
}

/** Forgets entries up to `index`. */
export function compactLog(log: Log, index: number): void {
  if (index <= log.baseIndex) return
  const term = termAt(log, index)
  assert(term !== undefined && index <= log.stable, 'only durable entries are compacted')
  log.entries.splice(0, index - log.baseIndex)
  log.baseIndex = index
  log.baseTerm = term
}

/** What an entry counts in the bounds on messages and on uncommitted data. */
export function entryBytes(entry: Entry): number {
  return entry.data.length + 24
}

/**
 * The last index at or before `index` whose term is at most `term`: where two logs may still agree, found
 * without asking for each entry (etcd's raft, "hint" of a rejection).
 */
export function findConflict(log: Log, index: number, term: number): { index: number; term: number } {
  let at = Math.min(index, lastIndex(log))
  for (; at > log.baseIndex; at--) {
    const own = termAt(log, at)!
    if (own <= term) return { index: at, term: own }
  }
  return { index: log.baseIndex, term: log.baseTerm }
}
