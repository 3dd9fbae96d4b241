import fc from 'fast-check'
import { expect, test } from 'vitest'
import { refusals } from './errors.ts'
import { hashSlices } from './hash.ts'
import type { KeyValue, SortTarget } from './requests.ts'
import { encodeSnapshot, restoreSnapshot } from './snapshot.ts'
import { MvccStore } from './store.ts'
import { ValueFetch } from './value-memory.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const none = new Uint8Array(0)

type ModelKey = { value: string; create: number; mod: number; version: number; lease: bigint }
type State = Map<string, ModelKey>

/** The whole state at each revision, copied: slow and obviously right. */
class Model {
  states: State[] = [new Map(), new Map()]
  leases = new Set<bigint>()
  compacted = -1

  get revision(): number {
    return this.states.length - 1
  }
  change(edit: (state: State, revision: number) => boolean): void {
    const next: State = new Map(this.states.at(-1))
    if (edit(next, this.states.length)) this.states.push(next)
  }
  put(key: string, value: string, lease: bigint): void {
    this.change((state, revision) => {
      const before = state.get(key)
      state.set(key, {
        value,
        create: before?.create ?? revision,
        mod: revision,
        version: (before?.version ?? 0) + 1,
        lease,
      })
      return true
    })
  }
  remove(keys: (key: string, at: ModelKey) => boolean): number {
    let count = 0
    this.change((state) => {
      for (const [key, at] of state) if (keys(key, at) && state.delete(key)) count++
      return count > 0
    })
    return count
  }
  read(revision: number, start: string, end: string): [string, ModelKey][] {
    return [...this.states[revision]!]
      .filter(([key]) => key >= start && key < end)
      .sort(([a], [b]) => (a < b ? -1 : 1))
  }
}

type Op =
  | { kind: 'put'; key: string; value: string; lease: bigint }
  | { kind: 'delete'; start: string; end: string }
  | { kind: 'swap'; key: string; version: number; other: string }
  | { kind: 'compact'; back: number }
  | { kind: 'grant' | 'revoke'; id: bigint }
  | { kind: 'snapshot' }
  | { kind: 'reclaim'; records: number }
  /** A read of the whole in slices that other operations come in between of. */
  | { kind: 'read'; back: number; sortTarget: SortTarget; limit: number; countOnly: boolean; pauses: number }

const key = fc.constantFrom('a', 'a\0', 'ab', 'b', 'c', 'd', '\xff', '\xff\xff')
const lease = fc.constantFrom(0n, 1n, 2n)
const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('put' as const),
      key,
      value: fc.string({ maxLength: 3 }),
      lease,
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('delete' as const), start: key, end: key }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('swap' as const), key, version: fc.nat(3), other: key }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('compact' as const), back: fc.nat(4) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('grant' as const, 'revoke' as const), id: lease }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'snapshot' as const }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('reclaim' as const), records: fc.nat(6) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      back: fc.nat(3),
      sortTarget: fc.constantFrom<SortTarget>('key', 'version', 'create', 'mod', 'value'),
      limit: fc.nat(3),
      countOnly: fc.boolean(),
      pauses: fc.nat(4),
    }),
  },
)

const plain = (kv: KeyValue): [string, ModelKey] => [
  Buffer.from(kv.key).toString('latin1'),
  {
    value: Buffer.from(kv.value).toString('latin1'),
    create: kv.createRevision,
    mod: kv.modRevision,
    version: kv.version,
    lease: kv.lease,
  },
]

function apply(store: MvccStore, model: Model, op: Op): MvccStore {
  switch (op.kind) {
    case 'put': {
      const outcome = store.put({ key: bytes(op.key), value: bytes(op.value), lease: op.lease, prevKv: true })
      const before = model.states.at(-1)!.get(op.key)
      if (op.lease && !model.leases.has(op.lease)) {
        expect(outcome).toEqual({ ok: false, refusal: refusals.leaseNotFound })
        return store
      }
      model.put(op.key, op.value, op.lease)
      expect(outcome.ok && outcome.value.prevKv && plain(outcome.value.prevKv)).toEqual(
        before && [op.key, before],
      )
      return store
    }
    case 'delete': {
      const outcome = store.deleteRange({ key: bytes(op.start), rangeEnd: bytes(op.end) })
      const deleted = model.remove((key) => key >= op.start && key < op.end)
      expect(outcome.ok && outcome.value.deleted).toBe(deleted)
      return store
    }
    case 'swap': {
      const isHeld = (model.states.at(-1)!.get(op.key)?.version ?? 0) === op.version
      const outcome = store.txn({
        compare: [
          { key: bytes(op.key), rangeEnd: none, target: 'version', wanted: op.version, result: 'equal' },
        ],
        success: [{ kind: 'put', request: { key: bytes(op.key), value: bytes('swapped') } }],
        failure: [
          { kind: 'delete', request: { key: bytes(op.key), rangeEnd: none } },
          { kind: 'range', request: { key: bytes(op.key), rangeEnd: none, countOnly: true } },
        ],
      })
      expect(outcome.ok && outcome.value.succeeded).toBe(isHeld)
      if (isHeld) model.put(op.key, 'swapped', 0n)
      else model.remove((key) => key === op.key)
      return store
    }
    case 'compact': {
      const revision = model.revision - op.back
      const outcome = store.compact(revision)
      expect(outcome.ok).toBe(revision > model.compacted)
      model.compacted = Math.max(model.compacted, revision)
      return store
    }
    case 'grant': {
      if (op.id === 0n) return store
      expect(store.grantLease(op.id, 10).ok).toBe(!model.leases.has(op.id))
      model.leases.add(op.id)
      return store
    }
    case 'revoke': {
      expect(store.revokeLease(op.id).ok).toBe(model.leases.has(op.id))
      if (model.leases.delete(op.id)) model.remove((_key, at) => at.lease === op.id)
      return store
    }
    case 'snapshot': {
      const restored = new MvccStore(store.sizes)
      expect(restoreSnapshot(restored, Buffer.concat([...encodeSnapshot(store)]))).toBeUndefined()
      expect(hash(restored)).toEqual(hash(store))
      return restored
    }
    case 'reclaim':
      // What is freed shows nowhere.
      store.reclaim(op.records)
      return store
    case 'read':
      return store
  }
}

function hash(store: MvccStore): unknown {
  const slices = hashSlices(store, 0)
  for (;;) {
    const step = slices.next()
    if (step.done) return step.value
  }
}

const sizes = fc.record({
  chunkRecords: fc.constantFrom(1, 2, 3, 1024),
  slabBytes: fc.constantFrom(1, 8, 1024),
  leafKeys: fc.constantFrom(2, 3, 512),
  sliceRecords: fc.constantFrom(1, 2, 1000),
})

type OpenRead = {
  slices: ReturnType<MvccStore['rangeSlices']>
  expected: { kvs: unknown[]; count: number; more: boolean }
  found: KeyValue[]
  left: number
}

function openRead(store: MvccStore, model: Model, op: Op & { kind: 'read' }): OpenRead {
  const revision = Math.max(1, model.revision - op.back, model.compacted)
  const { sortTarget, limit, countOnly } = op
  const request = { key: bytes('a'), rangeEnd: bytes('\xff\xff'), revision, sortTarget, limit, countOnly }
  const rank = ([, at]: [string, ModelKey]): number | string =>
    op.sortTarget === 'key' ? 0 : at[op.sortTarget]
  const all = model
    .read(revision, 'a', '\xff\xff')
    .sort((a, b) => (rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0))
  const wanted = countOnly ? 0 : limit || all.length
  const expected = {
    kvs: all.slice(0, wanted),
    count: all.length,
    more: !countOnly && wanted < all.length,
  }
  return { slices: store.rangeSlices(request), expected, found: [], left: op.pauses }
}

/** Takes one slice, or all that are left. Answers whether the read has ended. */
function goOn(read: OpenRead, all: boolean): boolean {
  for (;;) {
    const step = read.slices.next()
    if (step.done) {
      expect(step.value.ok).toBe(true)
      if (!step.value.ok) return true
      const { kvs, count, more } = step.value.value
      read.found.push(...kvs)
      expect({ kvs: read.found.map(plain), count, more }).toEqual(read.expected)
      return true
    }
    if (!(step.value instanceof ValueFetch)) read.found.push(...step.value)
    if (!all && read.left-- > 0) return false
  }
}

test('a store answers every revision as a copy of each state would', () => {
  fc.assert(
    fc.property(fc.array(op, { maxLength: 60 }), sizes, (ops, cut) => {
      let store = new MvccStore(cut)
      const model = new Model()
      let reads: OpenRead[] = []
      for (const each of ops) {
        store = apply(store, model, each)
        expect(store.revision).toBe(model.revision)
        if (each.kind === 'read') reads.push(openRead(store, model, each))
        reads = reads.filter((read) => !goOn(read, false))
      }
      for (const read of reads) expect(goOn(read, true)).toBe(true)
      while (store.reclaim(1));
      expect(store.isReclaimPending).toBe(false)
      expect(store.history.count).toBe(store.history.pinnedCount())
      for (let revision = 1; revision <= model.revision; revision++) {
        const outcome = store.range({ key: bytes('a'), rangeEnd: bytes('\xff\xff'), revision })
        if (revision < model.compacted) expect(outcome).toEqual({ ok: false, refusal: refusals.compacted })
        else {
          const all = model.read(revision, 'a', '\xff\xff')
          expect(outcome.ok && outcome.value.kvs.map(plain)).toEqual(all)
          const page = store.range({ key: bytes('a'), rangeEnd: bytes('\xff\xff'), revision, limit: 1 })
          expect(page.ok && page.value).toMatchObject({ count: all.length, more: all.length > 1 })
        }
      }
      const live = [...model.states.at(-1)!.keys()]
      expect(store.index.size).toBeGreaterThanOrEqual(live.length)
      for (const { id, keys } of store.leases.list()) {
        const attached = [...model.states.at(-1)!].filter(([, at]) => at.lease === id).map(([key]) => key)
        expect([...keys].sort()).toEqual(attached.sort())
      }
    }),
    { numRuns: 600 },
  )
})
