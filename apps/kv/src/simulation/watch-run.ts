import {
  encodeSnapshotSlices,
  MvccStore,
  restoreSnapshot,
  type WatchCreate,
  type WatchFetch,
  WatchHub,
} from '@kiln/mvcc'
import { Random } from '@kiln/simulation'
import { moveOut, readOut, runOut } from './values-out.ts'
import { type WatchedEvent, Watcher } from './watch-check.ts'

const members = 3
const keysMax = 8
const watchersMax = 6
const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const keyOf = (number: number): string => `k${number}`

/** What was agreed on: one revision each, but for a compaction. */
type Command =
  | { kind: 'write'; puts: string[]; value: string }
  | { kind: 'delete'; key: string; rangeEnd: string }
  | { kind: 'compact'; revision: number }

type Member = {
  store: MvccStore
  hub: WatchHub
  applied: number
  /** All values leave its memory as soon as they may. */
  isBounded: boolean
  /** What is being read for its watchers. */
  reading: WatchFetch[]
}

/**
 * Stores and watch hubs of several members in random steps: each applies the same commands at its own pace, one is now and then replaced
 * by a snapshot of another, watchers read slowly, come and go, and go on at another member from where they were. Each of them must get
 * every event it asked for, once, in order, and be sent away only for what is compacted. `breach` is what is wrong, if anything is.
 */
export function runWatch({ seed, steps }: { seed: number; steps: number }): {
  breach: string | undefined
  figures: { events: number; moves: number; cancelled: number; fetches: number }
} {
  const random = new Random(seed)
  const log: Command[] = []
  /** What happened, in order, as a member without faults has it. */
  const truth: WatchedEvent[] = []
  const model = new Map<string, string>()
  let revision = 1
  let compacted = -1
  const figures = { events: 0, moves: 0, cancelled: 0, fetches: 0 }
  const cluster = Array.from({ length: members }, (_, at) => startMember(seed % 2 === 0 && at > 0))
  const watchers: Watcher[] = []

  for (let step = 0; step < steps; step++) {
    act()
    const breach = breachOf()
    if (breach !== undefined) return { breach: `step ${step}: ${breach}`, figures }
  }
  // In the end everybody reads, and all that is left must come.
  for (const watcher of watchers) watcher.writable = true
  for (const member of cluster) {
    while (member.applied < log.length) applyNext(member)
    while (sync(member));
  }
  // Those who were sent away for a compaction come back, and again if that was not the last one.
  for (let gone = watchers; gone.length > 0; gone = gone.filter((one) => one.cancelledAt !== undefined)) {
    for (const watcher of gone) if (watcher.cancelledAt !== undefined) reopen(watcher, cluster[0]!)
    while (sync(cluster[0]!));
  }
  for (const watcher of watchers) watcher.complete(truth)
  return { breach: breachOf(), figures: { ...figures, events: truth.length } }

  function breachOf(): string | undefined {
    return watchers.find((watcher) => watcher.breach !== undefined)?.breach
  }

  function act(): void {
    const member = random.pick(cluster)
    const kind = random.next()
    if (kind < 0.25) agree()
    else if (kind < 0.6) applyNext(member)
    else if (kind < 0.78) sync(member)
    else if (kind < 0.82) createWatcher(member)
    else if (watchers.length === 0) return
    else if (kind < 0.95) {
      const watcher = random.pick(watchers)
      watcher.writable = !watcher.writable
    } else if (kind < 0.99) {
      figures.moves++
      reopen(random.pick(watchers), member)
    } else install(member)
  }

  /** What is read is there at the next pass; much may happen before. */
  function sync({ hub, reading }: Member): boolean {
    for (const { fetch, done } of reading.splice(0)) {
      readOut(fetch)
      done()
    }
    const isMore = hub.sync()
    const fetches = hub.takeFetches()
    figures.fetches += fetches.length
    reading.push(...fetches)
    return isMore || reading.length > 0
  }

  function agree(): void {
    const kind = random.next()
    if (kind < 0.03 && revision > 4) {
      const at = random.integer(Math.max(1, compacted + 1), revision)
      if (at <= compacted) return
      compacted = at
      log.push({ kind: 'compact', revision: at })
      return
    }
    if (kind < 0.25) {
      const first = random.integer(1, keysMax)
      const range = { key: keyOf(first), rangeEnd: keyOf(random.integer(first, keysMax + 1)) }
      const gone = [...model.keys()].filter((key) => key >= range.key && key < range.rangeEnd).sort()
      log.push({ kind: 'delete', ...range })
      if (gone.length > 0) revision++
      for (const key of gone) {
        model.delete(key)
        truth.push({ revision, type: 'delete', key, value: '' })
      }
      return
    }
    const keys = Array.from({ length: keysMax }, (_, at) => keyOf(at + 1))
    const puts = random.shuffle(keys).slice(0, random.chance(0.6) ? 1 : random.integer(2, 6))
    const value = `v${++revision}`
    log.push({ kind: 'write', puts, value })
    for (const key of puts) {
      model.set(key, value)
      truth.push({ revision, type: 'put', key, value })
    }
  }

  function applyNext(member: Member): void {
    const command = log[member.applied]
    if (command === undefined) return
    member.applied++
    const { store } = member
    switch (command.kind) {
      case 'write': {
        const value = bytes(command.value)
        const success = command.puts.map((key) => ({
          kind: 'put' as const,
          request: { key: bytes(key), value },
        }))
        store.txn({ compare: [], success, failure: [] })
        break
      }
      case 'delete':
        store.deleteRange({ key: bytes(command.key), rangeEnd: bytes(command.rangeEnd) })
        break
      case 'compact':
        store.compact(command.revision)
        runOut(store.reclaimSlices(1000))
        break
    }
    if (member.isBounded) moveOut(store)
    // Entries come in batches: the hub hears of several at once.
    if (random.chance(0.7)) member.hub.advance()
  }

  function createWatcher(member: Member): void {
    if (watchers.length >= watchersMax) return
    const first = random.integer(1, keysMax)
    const isSingle = random.chance(0.4)
    const watcher = new Watcher({
      key: keyOf(first),
      rangeEnd: isSingle ? '' : keyOf(random.integer(first + 1, keysMax + 1)),
      nextRevision: random.integer(Math.max(1, compacted + 1), revision + 3),
      noPut: random.chance(0.1),
      noDelete: random.chance(0.1),
      fragment: random.chance(0.5),
    })
    watchers.push(watcher)
    reopen(watcher, member)
  }

  /** Connects a watcher to a member, from where it was. */
  function reopen(watcher: Watcher, member: Member): void {
    watcher.close()
    if (watcher.cancelledAt !== undefined) figures.cancelled++
    watcher.expectFrom(truth)
    const stream = member.hub.open(watcher.connect(() => member.hub.close(stream)))
    const { key, rangeEnd, noPut, noDelete, fragment } = watcher.asked
    const request: WatchCreate = {
      key: bytes(key),
      rangeEnd: bytes(rangeEnd),
      startRevision: watcher.asked.nextRevision,
      watchId: 0,
      prevKv: false,
      noPut,
      noDelete,
      fragment,
      progressNotify: false,
    }
    member.hub.create(stream, request)
  }

  /** A member that was far behind takes over what another has. */
  function install(member: Member): void {
    const source = random.pick(cluster)
    if (source.applied <= member.applied) return
    const snapshot = Buffer.concat(runOut(encodeSnapshotSlices(source.store)).pieces)
    const problem = restoreSnapshot(member.store, snapshot)
    if (problem !== undefined) throw new Error(`assertion failed: the snapshot of a member is ${problem}`)
    member.applied = source.applied
    if (member.isBounded) moveOut(member.store)
    member.hub.reset()
  }
}

function startMember(isBounded: boolean): Member {
  const store = new MvccStore(isBounded ? { slabBytes: 16, chunkRecords: 4 } : {})
  const hub = new WatchHub(store, {
    watchersPerPass: 2,
    eventsPerPass: 6,
    replayEventsMax: 3,
    replayRecordsMax: 5,
    advanceRecordsMax: 4,
    advanceWatchersMax: 3,
  })
  return { store, hub, applied: 0, isBounded, reading: [] }
}
