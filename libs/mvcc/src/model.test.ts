import fc from 'fast-check'
import { expect, test } from 'vitest'
import { refusals } from './errors.ts'
import { hashSlices } from './hash.ts'
import type { KeyValue } from './requests.ts'
import { encodeSnapshot, restoreSnapshot } from './snapshot.ts'
import { MvccStore } from './store.ts'

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
      const restored = new MvccStore()
      expect(restoreSnapshot(restored, Buffer.concat([...encodeSnapshot(store)]))).toBeUndefined()
      expect(hash(restored)).toEqual(hash(store))
      return restored
    }
  }
}

function hash(store: MvccStore): unknown {
  const slices = hashSlices(store, 0)
  for (;;) {
    const step = slices.next()
    if (step.done) return step.value
  }
}

test('a store answers every revision as a copy of each state would', () => {
  fc.assert(
    fc.property(fc.array(op, { maxLength: 60 }), (ops) => {
      let store = new MvccStore()
      const model = new Model()
      for (const each of ops) {
        store = apply(store, model, each)
        expect(store.revision).toBe(model.revision)
      }
      for (let revision = 1; revision <= model.revision; revision++) {
        const outcome = store.range({ key: bytes('a'), rangeEnd: bytes('\xff\xff'), revision })
        if (revision < model.compacted) expect(outcome).toEqual({ ok: false, refusal: refusals.compacted })
        else {
          expect(outcome.ok && outcome.value.kvs.map(plain)).toEqual(model.read(revision, 'a', '\xff\xff'))
        }
      }
      for (const { id, keys } of store.leases.list()) {
        const attached = [...model.states.at(-1)!].filter(([, at]) => at.lease === id).map(([key]) => key)
        expect([...keys].sort()).toEqual(attached.sort())
      }
    }),
    { numRuns: 400 },
  )
})
