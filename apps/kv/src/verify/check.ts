import type { Observed, Recorded, Seen, Violation, WatchLog } from './observed.ts'

export type Evidence = {
  operations: readonly Observed[]
  /** Everything that was ever written, by revision: a watch from the first revision when all was over. */
  history: readonly Recorded[]
  watches: readonly WatchLog[]
  /** By lease, when its last grant or renewal was asked for that was answered, and how long it lasts at least from there. */
  leases: ReadonlyMap<string, { renewedAt: number; ttlMs: number }>
}

/** How many of a kind are reported. */
const reportsMax = 20

/**
 * Checks a run against its own history. The store numbers its writes and says with every answer which number it made or saw, and so
 * proposes one order of all operations: by revision, a write before the reads of it. The run is linearizable if that order agrees with
 * real time (no operation is ordered before one that had returned when it was called) and every answer is what it must be there. This takes
 * n log n steps where a search takes exponentially many, and never accepts a run that is not linearizable; a store that answered wrong
 * numbers with right data would be refused, and rightly so, as clients rely on them.
 */
export function findViolations(evidence: Evidence): Violation[] {
  const violations = [
    ...checkHistoryOrder(evidence.history),
    ...checkRealTime(evidence),
    ...checkAnswers(evidence),
    ...checkOrigins(evidence),
    ...checkWatches(evidence),
  ]
  const counts = new Map<string, number>()
  return violations.filter(({ rule }) => {
    const count = (counts.get(rule) ?? 0) + 1
    counts.set(rule, count)
    return count <= reportsMax
  })
}

/** Revisions rise by one from one write to the next, and a write touches no key twice. */
function* checkHistoryOrder(history: readonly Recorded[]): Generator<Violation> {
  let last: Recorded | undefined
  let keys = new Set<string>()
  for (const change of history) {
    if (last && change.revision !== last.revision) keys = new Set()
    if (last && change.revision !== last.revision && change.revision !== last.revision + 1)
      yield violation('history', `revision ${change.revision} follows ${last.revision}`)
    if (keys.has(change.key))
      yield violation('history', `revision ${change.revision} changes ${change.key} twice`)
    keys.add(change.key)
    last = change
  }
}

/** No operation is at a revision before one that had returned when it was called; a write is behind it. */
function* checkRealTime({ operations, history }: Evidence): Generator<Violation> {
  const madeAt = revisionsOfValues(history)
  const events: { at: number; isCall: boolean; operation: Observed; revision: number; writes: boolean }[] = []
  for (const operation of operations) {
    const placed = placeOf(operation, madeAt)
    if (!placed) continue
    events.push({ at: operation.calledAt, isCall: true, operation, ...placed })
    // One without an answer may end whenever it likes, but it was not before its call.
    if (operation.returnedAt !== undefined)
      events.push({ at: operation.returnedAt, isCall: false, operation, ...placed })
  }
  // What returned in the very instant another was called counts as beside it.
  events.sort((a, b) => a.at - b.at || Number(b.isCall) - Number(a.isCall))
  let floor = 0
  let floorOf: Observed | undefined
  for (const { isCall, operation, revision, writes } of events) {
    if (isCall) {
      if (revision < floor || (writes && revision === floor))
        yield violation(
          'real time',
          `operation ${operation.id} (${operation.asked.kind}) is at revision ${revision}, though ${floorOf!.id} at ${floor} had returned before it was called`,
          [operation.id, floorOf!.id],
          operation.calledAt,
        )
    } else if (revision > floor) {
      floor = revision
      floorOf = operation
    }
  }
}

/** Where the store says an operation is; nothing for one that left no trace. */
function placeOf(
  { asked, told }: Observed,
  madeAt: ReadonlyMap<string, number>,
): { revision: number; writes: boolean } | undefined {
  if (told) {
    if (asked.kind.startsWith('lease')) return undefined
    const writes = asked.kind === 'put' || (asked.kind !== 'range' && told.done === true)
    return { revision: told.revision, writes }
  }
  const value = asked.kind === 'put' ? asked.value : asked.kind === 'txn' ? asked.puts[0]?.value : undefined
  const revision = value === undefined ? undefined : madeAt.get(value)
  return revision === undefined ? undefined : { revision, writes: true }
}

/** Every answer is what the history says: what was acknowledged is there, and what was read was so. */
function* checkAnswers({ operations, history }: Evidence): Generator<Violation> {
  const answered = operations
    .filter(({ told }) => told !== undefined)
    .sort((a, b) => a.told!.revision - b.told!.revision)
  const state = new SortedState()
  let next = 0
  let revision = 0
  let changed = new Map<string, string | undefined>()
  for (const operation of answered) {
    const told = operation.told!
    while (next < history.length && history[next]!.revision <= told.revision) {
      const change = history[next++]!
      if (change.revision !== revision) changed = new Map()
      revision = change.revision
      // What was before is kept for transactions, which read the state before their own write.
      if (!changed.has(change.key)) changed.set(change.key, state.get(change.key))
      state.set(change.key, change.value)
    }
    const before = revision === told.revision ? changed : new Map<string, string | undefined>()
    const problem = wrongAnswer(operation, state, before)
    if (problem)
      yield violation(
        problem.rule,
        `operation ${operation.id} (${operation.asked.kind}) at revision ${told.revision}: ${problem.text}`,
        [operation.id],
        operation.calledAt,
      )
  }
}

type Problem = { rule: string; text: string }

function wrongAnswer(
  { asked, told }: Observed,
  state: SortedState,
  before: ReadonlyMap<string, string | undefined>,
): Problem | undefined {
  switch (asked.kind) {
    case 'put':
      return before.has(asked.key) && state.get(asked.key) === asked.value
        ? undefined
        : { rule: 'lost write', text: `acknowledged, and not in the history: ${asked.key}=${asked.value}` }
    case 'delete':
      if (told!.done)
        return before.has(asked.key) && state.get(asked.key) === undefined
          ? undefined
          : { rule: 'lost write', text: `acknowledged, and not in the history: deletion of ${asked.key}` }
      return state.get(asked.key) === undefined
        ? undefined
        : {
            rule: 'wrong answer',
            text: `found nothing to delete, but there was ${asked.key}=${state.get(asked.key)}`,
          }
    case 'range':
      return differs(told!.found ?? [], state.range(asked.from, asked.to))
    case 'txn': {
      const past = told!.done ? before : new Map<string, string | undefined>()
      const valueBefore = past.has(asked.compare.key)
        ? past.get(asked.compare.key)
        : state.get(asked.compare.key)
      if ((valueBefore === asked.compare.value) !== told!.done)
        return {
          rule: 'wrong answer',
          text: `compared ${asked.compare.key} with ${asked.compare.value}, it was ${valueBefore}, and answered ${told!.done}`,
        }
      if (told!.done) {
        for (const { key, value } of asked.puts)
          if (!before.has(key) || state.get(key) !== value)
            return { rule: 'lost write', text: `acknowledged, and not in the history: ${key}=${value}` }
      }
      return differs(told!.found ?? [], state.range(asked.from, asked.to, past))
    }
    case 'lease-grant':
    case 'lease-keep':
    case 'lease-revoke':
      return undefined
  }
}

function differs(found: readonly Seen[], there: readonly Seen[]): Problem | undefined {
  const line = (pairs: readonly Seen[]): string => pairs.map(({ key, value }) => `${key}=${value}`).join(' ')
  const [a, b] = [line(found), line(there)]
  return a === b ? undefined : { rule: 'wrong answer', text: `read [${a}], but there was [${b}]` }
}

/** Every change comes from something that was asked, at or after it was; what was refused made none. */
function* checkOrigins({ operations, history, leases }: Evidence): Generator<Violation> {
  const puts = new Map<string, Observed>()
  const leaseOfValue = new Map<string, string>()
  const deletesAt = new Set<string>()
  const openDeletes = new Set<string>()
  for (const operation of operations) {
    const { asked, told, refused } = operation
    if (asked.kind === 'put') {
      puts.set(asked.value, operation)
      if (asked.lease !== undefined) leaseOfValue.set(asked.value, asked.lease)
    }
    if (asked.kind === 'txn') for (const { value } of asked.puts) puts.set(value, operation)
    const deleted = asked.kind === 'delete' ? [asked.key] : asked.kind === 'txn' ? asked.deletes : []
    for (const key of deleted) {
      if (told?.done) deletesAt.add(`${told.revision} ${key}`)
      else if (!told && refused === undefined) openDeletes.add(key)
    }
  }
  const valueByKey = new Map<string, string>()
  for (const { revision, key, value } of history) {
    if (value !== undefined) {
      const origin = puts.get(value)
      if (!origin || origin.refused !== undefined)
        yield violation(
          'origin',
          `revision ${revision} has ${key}=${value}, which ${origin ? `was refused: ${origin.refused}` : 'nobody asked for'}`,
          origin ? [origin.id] : [],
          origin?.calledAt ?? 0,
        )
      valueByKey.set(key, value)
    } else {
      const before = valueByKey.get(key)
      const lease = before === undefined ? undefined : leaseOfValue.get(before)
      const isExplained =
        deletesAt.has(`${revision} ${key}`) ||
        openDeletes.has(key) ||
        (lease !== undefined && leases.has(lease))
      if (!isExplained)
        yield violation('origin', `revision ${revision} deletes ${key}, which nobody asked for`)
      valueByKey.delete(key)
    }
  }
}

/** Every watcher heard each change exactly once and in order, from its first revision to the end. */
function* checkWatches({ watches, history, leases, operations }: Evidence): Generator<Violation> {
  const leaseOfValue = new Map<string, string>()
  const deletesAt = new Set<string>()
  const openDeletes = new Set<string>()
  const revoked = new Set<string>()
  for (const { asked, told } of operations) {
    if (asked.kind === 'put' && asked.lease !== undefined) leaseOfValue.set(asked.value, asked.lease)
    if (asked.kind === 'lease-revoke') revoked.add(asked.lease)
    const deleted = asked.kind === 'delete' ? [asked.key] : asked.kind === 'txn' ? asked.deletes : []
    for (const key of deleted) {
      if (told?.done) deletesAt.add(`${told.revision} ${key}`)
      else if (!told) openDeletes.add(key)
    }
  }
  for (const { member, changes, seenAt } of watches) {
    const valueByKey = new Map<string, string>()
    for (const [at, wanted] of history.entries()) {
      const got = changes[at]
      if (!got || got.revision !== wanted.revision || got.key !== wanted.key || got.value !== wanted.value) {
        const heard = got ? `${got.revision} ${got.key}=${got.value ?? 'deleted'}` : 'nothing'
        yield violation(
          'watch',
          `the watcher of ${member} heard ${heard} in place ${at}, not ${wanted.revision} ${wanted.key}=${wanted.value ?? 'deleted'}`,
          [],
          seenAt[at] ?? 0,
        )
        break
      }
      if (wanted.value !== undefined) valueByKey.set(wanted.key, wanted.value)
      else {
        // Heard of before the lease could have ended: it ended too early.
        const lease = leaseOfValue.get(valueByKey.get(wanted.key) ?? '')
        const terms = lease === undefined ? undefined : leases.get(lease)
        const isAsked = deletesAt.has(`${wanted.revision} ${wanted.key}`) || openDeletes.has(wanted.key)
        if (terms && !isAsked && !revoked.has(lease!) && seenAt[at]! < terms.renewedAt + terms.ttlMs)
          yield violation(
            'lease',
            `${wanted.key} was deleted with its lease ${lease} ${Math.round(terms.renewedAt + terms.ttlMs - seenAt[at]!)} ms too early`,
            [],
            seenAt[at],
          )
        valueByKey.delete(wanted.key)
      }
    }
    if (changes.length > history.length)
      yield violation('watch', `the watcher of ${member} heard more than there was`)
  }
}

function revisionsOfValues(history: readonly Recorded[]): Map<string, number> {
  const revisions = new Map<string, number>()
  for (const { revision, value } of history) if (value !== undefined) revisions.set(value, revision)
  return revisions
}

const violation = (rule: string, text: string, ids: number[] = [], at = 0): Violation => ({
  rule,
  text,
  ids,
  at,
})

/** Few keys: those of a run. */
class SortedState {
  readonly #values = new Map<string, string>()
  #keys: string[] = []

  get(key: string): string | undefined {
    return this.#values.get(key)
  }

  set(key: string, value: string | undefined): void {
    const had = this.#values.has(key)
    if (value === undefined) this.#values.delete(key)
    else this.#values.set(key, value)
    if (had !== (value !== undefined)) this.#keys = [...this.#values.keys()].sort()
  }

  /** What was in a range; `past` has what keys were before the last write. */
  range(from: string, to: string, past: ReadonlyMap<string, string | undefined> = new Map()): Seen[] {
    const found: Seen[] = []
    const keys = past.size === 0 ? this.#keys : [...new Set([...this.#keys, ...past.keys()])].sort()
    for (const key of keys) {
      if (key < from || key >= to) continue
      const value = past.has(key) ? past.get(key) : this.#values.get(key)
      if (value !== undefined) found.push({ key, value })
    }
    return found
  }
}
