import fc from 'fast-check'
import { expect, test } from 'vitest'
import { historyRefusals, readDeleted, readDiff, readRevisions } from './history-read.ts'
import { inOnePiece } from './slices.ts'
import { MvccStore } from './store.ts'

const bytes = (text: string): Buffer => Buffer.from(text)
const text = (value: Uint8Array): string => Buffer.from(value).toString()
const all = { key: new Uint8Array(1), rangeEnd: new Uint8Array(1) }
const unbounded = { changesMax: 1000, bytesMax: 1 << 20 }

function storeOf(...steps: [key: string, value: string | undefined][]): MvccStore {
  const store = new MvccStore({ sliceRecords: 2 })
  for (const [key, value] of steps) {
    if (value === undefined) store.deleteRange({ key: bytes(key), rangeEnd: new Uint8Array() })
    else store.put({ key: bytes(key), value: bytes(value) })
  }
  return store
}

function revisionsOf(store: MvccStore, key: string, more: { limit?: number; before?: number } = {}) {
  const request = { key: bytes(key), limit: 0, before: 0, keysOnly: false, ...more }
  const found = inOnePiece(store.lookSlices(0, (view) => readRevisions(view, request)))
  const changes = found.changes.map(({ kind, kv }) => `${kv.modRevision} ${kind} ${text(kv.value)}`.trim())
  return { changes, more: found.more }
}

function deletedOf(store: MvccStore, limit = 0) {
  const found = inOnePiece(store.lookSlices(0, (view) => readDeleted(view, { ...all, limit })))
  const keys = found.keys.map(
    ({ key, deletedRevision, last }) => `${text(key)} ${deletedRevision} ${last?.modRevision ?? 'unknown'}`,
  )
  return { keys, more: found.more }
}

function restore(store: MvccStore, revision: number, more: Partial<typeof unbounded> = {}) {
  return inOnePiece(store.restoreRangeSlices({ ...all, revision, ...unbounded, ...more }))
}

test('the revisions of a key come newest first, in pages', () => {
  const store = storeOf(['a', '1'], ['b', 'x'], ['a', '2'], ['a', undefined], ['a', '3'])
  expect(revisionsOf(store, 'a')).toEqual({
    changes: ['6 put 3', '5 delete', '4 put 2', '2 put 1'],
    more: false,
  })
  expect(revisionsOf(store, 'a', { limit: 3 })).toEqual({
    changes: ['6 put 3', '5 delete', '4 put 2'],
    more: true,
  })
  expect(revisionsOf(store, 'a', { before: 4 })).toEqual({ changes: ['2 put 1'], more: false })
  expect(revisionsOf(store, 'none').changes).toEqual([])
})

test('what a compaction has forgotten is not answered, freed or not', () => {
  const store = storeOf(['a', '1'], ['a', '2'], ['a', '3'], ['b', '1'], ['b', undefined])
  store.compact(4)
  for (const isFreed of [false, true]) {
    if (isFreed) while (store.reclaim(100));
    expect(revisionsOf(store, 'a').changes, String(isFreed)).toEqual(['4 put 3'])
    expect(revisionsOf(store, 'b').changes).toEqual(['6 delete', '5 put 1'])
    expect(deletedOf(store).keys).toEqual(['b 6 5'])
  }
  store.put({ key: bytes('c'), value: bytes('1') })
  store.compact(7)
  for (const isFreed of [false, true]) {
    if (isFreed) while (store.reclaim(100));
    expect(revisionsOf(store, 'b').changes, String(isFreed)).toEqual([])
    expect(deletedOf(store).keys).toEqual([])
  }
})

test('deleted keys are told with what they were, and those that live are not', () => {
  const store = storeOf(['a', '1'], ['b', '1'], ['c', '1'], ['a', undefined], ['c', undefined], ['d', '1'])
  expect(deletedOf(store)).toEqual({ keys: ['a 5 2', 'c 6 4'], more: false })
  expect(deletedOf(store, 1)).toEqual({ keys: ['a 5 2'], more: true })
})

test('a restore is one revision, leaves alone what is the same, and takes keys from their leases', () => {
  const store = storeOf(['same', '1'], ['changed', '1'], ['gone', '1'])
  store.grantLease(7n, 60)
  store.put({ key: bytes('changed'), value: bytes('2'), lease: 7n })
  store.deleteRange({ key: bytes('gone'), rangeEnd: new Uint8Array() })
  store.put({ key: bytes('new'), value: bytes('1') })
  expect(restore(store, 4)).toEqual({ ok: true, value: { revision: 8, put: 2, deleted: 1 } })
  expect(store.revision).toBe(8)
  expect(store.get(bytes('same'))?.modRevision).toBe(2)
  expect(store.get(bytes('changed'))).toMatchObject({ modRevision: 8, lease: 0n, version: 3 })
  expect(store.leases.get(7n)?.keys.size).toBe(0)
  expect(store.get(bytes('new'))).toBeUndefined()
  // A second time there is nothing to do, and no revision.
  expect(restore(store, 4)).toEqual({ ok: true, value: { revision: 8, put: 0, deleted: 0 } })
})

test('a restore of too much, or of what is not known, changes nothing', () => {
  const store = storeOf(['a', '1'], ['b', '1'], ['a', undefined], ['b', undefined])
  expect(restore(store, 3, { changesMax: 1 })).toEqual({ ok: false, refusal: historyRefusals.tooManyChanges })
  expect(restore(store, 3, { bytesMax: 3 })).toMatchObject({ ok: false, refusal: { code: 8 } })
  expect(restore(store, 0)).toEqual({ ok: false, refusal: historyRefusals.revisionMissing })
  expect(restore(store, 99)).toMatchObject({ ok: false, refusal: { code: 11 } })
  store.compact(4)
  expect(restore(store, 3)).toMatchObject({ ok: false, refusal: { code: 11 } })
  expect(store.revision).toBe(5)
  expect(restore(store, 4, { changesMax: 1, bytesMax: 2 })).toMatchObject({ ok: true, value: { put: 1 } })
})

test('restoring brings back what a read at that revision saw, and a diff says what that changes', () => {
  const step = fc.record({
    key: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    value: fc.option(fc.constantFrom('1', '2'), { nil: undefined }),
  })
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 30 }), fc.nat(), (steps, seed) => {
      const store = storeOf(...steps.map(({ key, value }): [string, string | undefined] => [key, value]))
      const revision = 1 + (seed % store.revision)
      const pairsAt = (at: number): string[] => {
        const read = store.range({ ...all, revision: at })
        return read.ok ? read.value.kvs.map(({ key, value }) => `${text(key)}=${text(value)}`) : []
      }
      const wanted = pairsAt(revision)
      const now = pairsAt(store.revision)
      const request = { ...all, from: revision, to: 0, limit: 0, keysOnly: false }
      const { differences } = inOnePiece(store.lookSlices(revision, (view) => readDiff(view, request)))
      const patched = new Map(wanted.map((pair) => pair.split('=') as [string, string]))
      for (const { key, after } of differences) {
        if (after) patched.set(text(key), text(after.value))
        else patched.delete(text(key))
      }
      expect([...patched].map((pair) => pair.join('=')).sort()).toEqual(now)
      expect(restore(store, revision).ok).toBe(true)
      expect(pairsAt(store.revision)).toEqual(wanted)
    }),
  )
})
