import { expect, test } from 'vitest'
import { refusals } from './errors.ts'
import type { KeyValue, RangeRequest, TxnRequest } from './requests.ts'
import { inOnePiece } from './slices.ts'
import { encodeSnapshot, restoreSnapshot, SnapshotDecoder } from './snapshot.ts'
import { MvccStore } from './store.ts'
import { checkPut, checkTxn } from './txn-check.ts'
import { WatchHub } from './watch-hub.ts'
import type { WatchMessage } from './watcher.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const none = new Uint8Array(0)

function storeOf(...pairs: [string, string][]): MvccStore {
  const store = new MvccStore()
  for (const [key, value] of pairs) store.put({ key: bytes(key), value: bytes(value) })
  return store
}

function read(store: MvccStore, key: string, end: string, more: Partial<RangeRequest> = {}) {
  const outcome = store.range({ key: bytes(key), rangeEnd: bytes(end), ...more })
  if (!outcome.ok) return outcome.refusal
  const { kvs, count, more: isMore } = outcome.value
  return { keys: kvs.map((kv) => Buffer.from(kv.key).toString('latin1')).join(' '), count, more: isMore }
}

test('an empty store is at revision 1 and the first write makes 2', () => {
  const store = new MvccStore()
  expect(store.revision).toBe(1)
  store.put({ key: bytes('a'), value: none })
  expect(store.revision).toBe(2)
})

test('range ends mean one key, a span, from the key on, or nothing', () => {
  const store = storeOf(['a', '1'], ['b', '2'], ['c', '3'])
  expect(read(store, 'b', '')).toEqual({ keys: 'b', count: 1, more: false })
  expect(read(store, 'a', 'c')).toEqual({ keys: 'a b', count: 2, more: false })
  expect(read(store, 'b', '\0')).toEqual({ keys: 'b c', count: 2, more: false })
  expect(read(store, '\0', '\0')).toEqual({ keys: 'a b c', count: 3, more: false })
  expect(read(store, 'c', 'a')).toEqual({ keys: '', count: 0, more: false })
})

test('count is of the whole range whatever limit and filters', () => {
  const store = storeOf(['a', '1'], ['b', '2'], ['c', '3'])
  expect(read(store, 'a', 'z', { limit: 2 })).toEqual({ keys: 'a b', count: 3, more: true })
  expect(read(store, 'a', 'z', { limit: 3 })).toEqual({ keys: 'a b c', count: 3, more: false })
  expect(read(store, 'a', 'z', { minModRevision: 3, limit: 2 })).toEqual({
    keys: 'b c',
    count: 3,
    more: false,
  })
  expect(read(store, 'a', 'z', { maxCreateRevision: 3, limit: 1 })).toEqual({
    keys: 'a',
    count: 3,
    more: true,
  })
  expect(read(store, 'a', 'z', { countOnly: true })).toEqual({ keys: '', count: 3, more: false })
})

test('sorting comes before the limit and a target without an order sorts ascending', () => {
  const store = storeOf(['a', '2'], ['b', '3'], ['c', '1'], ['b', '3'])
  const sorted = (more: Partial<RangeRequest>): unknown => read(store, 'a', 'z', more)
  expect(sorted({ sortTarget: 'value' })).toMatchObject({ keys: 'c a b' })
  expect(sorted({ sortTarget: 'mod', sortOrder: 'descend', limit: 1 })).toMatchObject({
    keys: 'b',
    more: true,
  })
  expect(sorted({ sortTarget: 'version', sortOrder: 'descend', limit: 1 })).toMatchObject({ keys: 'b' })
  expect(sorted({ sortTarget: 'create', sortOrder: 'ascend' })).toMatchObject({ keys: 'a b c' })
  expect(sorted({ sortTarget: 'key', sortOrder: 'descend' })).toMatchObject({ keys: 'c b a' })
})

test('reads above the revision and below the compaction are refused, at the compaction answered', () => {
  const store = storeOf(['a', '1'], ['a', '2'], ['a', '3'])
  expect(store.compact(3).ok).toBe(true)
  expect(read(store, 'a', '', { revision: 2 })).toBe(refusals.compacted)
  expect(read(store, 'a', '', { revision: 3 })).toMatchObject({ count: 1 })
  expect(read(store, 'a', '', { revision: 5 })).toBe(refusals.futureRevision)
  expect(store.compact(3)).toEqual({ ok: false, refusal: refusals.compacted })
  expect(store.compact(9)).toEqual({ ok: false, refusal: refusals.futureRevision })
})

test('a compaction frees old values and a key that is gone', () => {
  const store = new MvccStore()
  for (let i = 0; i < 5000; i++) store.put({ key: bytes(`k${i % 10}`), value: Buffer.alloc(100) })
  store.deleteRange({ key: bytes('k0'), rangeEnd: none })
  store.put({ key: bytes('other'), value: none })
  const before = store.sizeBytes
  store.compact(store.revision)
  expect(store.sizeBytes).toBe(before)
  expect(store.isReclaimPending).toBe(true)
  let slices = 1
  while (store.reclaim(1000)) slices++
  expect(slices).toBe(5)
  expect(store.isReclaimPending).toBe(false)
  expect(store.history.count).toBe(10)
  expect(store.index.size).toBe(10)
  expect(store.sizeBytes).toBeLessThan(before / 100)
  store.put({ key: bytes('k0'), value: none })
  expect(store.get(bytes('k0'))).toMatchObject({ version: 1, createRevision: store.revision })
})

test('what a read in slices looks at stays until it has ended', () => {
  const store = new MvccStore({ sliceRecords: 2, chunkRecords: 4 })
  for (let i = 0; i < 20; i++) store.put({ key: bytes(`k${i}`), value: bytes('old') })
  const slices = store.rangeSlices({ key: bytes('k'), rangeEnd: bytes('l') })
  const found: KeyValue[] = [...(slices.next().value as KeyValue[])]
  for (let i = 0; i < 20; i++) store.put({ key: bytes(`k${i}`), value: bytes('new') })
  store.deleteRange({ key: bytes('k1'), rangeEnd: bytes('k9') })
  store.put({ key: bytes('x'), value: none })
  store.compact(store.revision)
  while (store.reclaim(1));
  expect(store.isReclaimPending).toBe(true)
  for (let step = slices.next(); ; step = slices.next()) {
    if (!step.done) found.push(...(step.value as KeyValue[]))
    else {
      if (step.value.ok) found.push(...step.value.value.kvs)
      expect(step.value).toMatchObject({ ok: true, value: { count: 20, revision: 21 } })
      break
    }
  }
  expect(found.map((kv) => Buffer.from(kv.value).toString())).toEqual(new Array(20).fill('old'))
  while (store.reclaim(1));
  expect(store.history.count).toBe(3)
  expect(store.isReclaimPending).toBe(false)
})

test('a write in slices is not seen before it is complete', () => {
  const store = new MvccStore({ sliceRecords: 3, chunkRecords: 4 })
  store.grantLease(7n, 10)
  for (let i = 0; i < 20; i++) store.put({ key: bytes(`k${i}`), value: none, lease: 7n })
  const image = (of: MvccStore): Buffer => Buffer.concat([...encodeSnapshot(of)])
  const before = image(store)
  const messages: WatchMessage[] = []
  const hub = new WatchHub(store)
  const stream = hub.open({ writable: true, send: (message) => void messages.push(message) })
  const watch = { key: bytes('k'), rangeEnd: bytes('l'), watchId: 0, prevKv: false, noPut: false }
  const options = { noDelete: false, fragment: false, progressNotify: false }
  hub.create(stream, { ...watch, ...options, startRevision: 0 })
  hub.create(stream, { ...watch, ...options, startRevision: 20 })
  const slices = store.revokeLeaseSlices(7n)
  let pauses = 0
  for (let step = slices.next(); !step.done; step = slices.next()) {
    pauses++
    expect(read(store, 'k', 'l')).toMatchObject({ count: 20 })
    expect(store.txn(txn([get('k1')]))).toMatchObject({ ok: true, value: { revision: 21 } })
    expect(image(store)).toEqual(before)
    hub.advance()
    hub.sync()
  }
  expect(pauses).toBeGreaterThan(5)
  expect(messages.flatMap((message) => message.events.map(({ type }) => type))).toEqual(['put', 'put'])
  expect(read(store, 'k', 'l')).toMatchObject({ count: 0 })
  expect(store.leases.has(7n)).toBe(false)
  hub.advance()
  expect(messages.slice(-2).map(({ revision, events }) => [revision, events.length])).toEqual([
    [22, 20],
    [22, 20],
  ])
})

test('a deletion in slices gives what one in one piece gives', () => {
  const image = (sliceRecords: number): unknown => {
    const store = new MvccStore({ sliceRecords })
    for (let i = 0; i < 100; i++) store.put({ key: bytes(`k${i % 50}`), value: bytes(`${i}`) })
    const outcome = store.txn(txn([remove('k1', 'k3'), put('x'), get('k1'), remove('k3', 'k9')]))
    return { outcome, bytes: Buffer.concat([...encodeSnapshot(store)]) }
  }
  expect(image(1)).toEqual(image(1000))
})

test('ignoring value or lease keeps them and needs an existing key', () => {
  const store = storeOf(['a', '1'])
  store.grantLease(7n, 10)
  store.put({ key: bytes('a'), value: bytes('2'), lease: 7n })
  store.put({ key: bytes('a'), value: none, ignoreValue: true })
  expect(store.get(bytes('a'))).toMatchObject({
    value: Buffer.from('2'),
    lease: 0n,
    version: 3,
  })
  store.put({ key: bytes('a'), value: none, lease: 7n })
  store.put({ key: bytes('a'), value: bytes('3'), ignoreLease: true })
  expect(store.get(bytes('a'))).toMatchObject({ value: Buffer.from('3'), lease: 7n })
  const missing = store.put({ key: bytes('x'), value: none, ignoreValue: true })
  expect(missing).toEqual({ ok: false, refusal: refusals.keyNotFound })
  expect(checkPut({ key: bytes('a'), value: bytes('1'), ignoreValue: true })).toBe(refusals.valueProvided)
  expect(checkPut({ key: bytes('a'), value: none, ignoreLease: true, lease: 1n })).toBe(
    refusals.leaseProvided,
  )
  expect(checkPut({ key: none, value: none })).toBe(refusals.emptyKey)
})

test('revoking a lease deletes its keys in one revision', () => {
  const store = new MvccStore()
  store.grantLease(7n, 10)
  for (const key of ['a', 'b', 'c']) store.put({ key: bytes(key), value: none, lease: 7n })
  store.put({ key: bytes('b'), value: none })
  const before = store.revision
  expect(store.revokeLease(7n).ok).toBe(true)
  expect(store.revision).toBe(before + 1)
  expect(read(store, 'a', 'z')).toMatchObject({ keys: 'b' })
  expect(store.revokeLease(7n)).toEqual({ ok: false, refusal: refusals.leaseNotFound })
})

const put = (key: string, value = '') => ({
  kind: 'put' as const,
  request: { key: bytes(key), value: bytes(value) },
})
const remove = (key: string, end = '') => ({
  kind: 'delete' as const,
  request: { key: bytes(key), rangeEnd: bytes(end) },
})
const get = (key: string, revision = 0) => ({
  kind: 'range' as const,
  request: { key: bytes(key), rangeEnd: none, revision },
})
const txn = (success: TxnRequest['success'], failure: TxnRequest['failure'] = []): TxnRequest => ({
  compare: [],
  success,
  failure,
})

test('a transaction is one revision and its reads see its own writes', () => {
  const store = storeOf(['a', '1'])
  const outcome = store.txn(txn([put('a', '2'), get('a'), put('b', '3'), remove('c')]))
  expect(outcome).toMatchObject({
    ok: true,
    value: {
      revision: 3,
      succeeded: true,
      responses: [{}, { response: { kvs: [{ modRevision: 3 }] } }, {}, {}],
    },
  })
  expect(store.revision).toBe(3)
  store.txn(txn([get('a')]))
  expect(store.revision).toBe(3)
})

test('a transaction that is refused while applied leaves nothing behind', () => {
  const store = storeOf(['a', '1'])
  const leased = { kind: 'put' as const, request: { key: bytes('c'), value: none, lease: 9n } }
  expect(store.txn(txn([put('a', '2'), leased]))).toEqual({ ok: false, refusal: refusals.leaseNotFound })
  expect(store.txn(txn([put('a', '2'), get('a', 99)]))).toEqual({
    ok: false,
    refusal: refusals.futureRevision,
  })
  expect(store.revision).toBe(2)
  expect(store.get(bytes('a'))).toMatchObject({ version: 1 })
})

test('compares of a missing key see zeros, and a value compare of one is false', () => {
  const store = storeOf(['a', '1'])
  const holds = (compare: TxnRequest['compare'][number]): unknown => {
    const outcome = store.txn({ compare: [compare], success: [], failure: [] })
    return outcome.ok && outcome.value.succeeded
  }
  const missing = { key: bytes('x'), rangeEnd: none }
  expect(holds({ ...missing, target: 'version', wanted: 0, result: 'equal' })).toBe(true)
  expect(holds({ ...missing, target: 'lease', wanted: 0n, result: 'equal' })).toBe(true)
  expect(holds({ ...missing, target: 'mod', wanted: 1, result: 'less' })).toBe(true)
  expect(holds({ ...missing, target: 'value', wanted: bytes('q'), result: 'not-equal' })).toBe(false)
  const all = { key: bytes('\0'), rangeEnd: bytes('\0') }
  expect(holds({ ...all, target: 'mod', wanted: 1, result: 'greater' })).toBe(true)
  expect(holds({ ...all, target: 'create', wanted: 2, result: 'greater' })).toBe(false)
})

test('validation counts operations through nesting', () => {
  const puts = (count: number) => Array.from({ length: count }, (_, i) => put(`k${i}`))
  expect(checkTxn(txn(puts(128)))).toBeUndefined()
  expect(checkTxn(txn(puts(129)))).toBe(refusals.tooManyOps)
  const nested = (outer: number, inner: number) =>
    txn([
      ...puts(outer - 1),
      { kind: 'txn', request: txn(puts(inner).map((op) => put(`i${op.request.key}`))) },
    ])
  expect(checkTxn(nested(28, 100))).toBeUndefined()
  expect(checkTxn(nested(29, 100))).toBe(refusals.tooManyOps)
  expect(checkTxn(txn([{ kind: 'empty' }]))).toBe(refusals.keyNotFound)
  expect(checkTxn(txn([get('')]))).toBe(refusals.emptyKey)
})

test('one key may be changed once on a path', () => {
  const inner = (success: TxnRequest['success'], failure: TxnRequest['failure'] = []) => ({
    kind: 'txn' as const,
    request: txn(success, failure),
  })
  expect(checkTxn(txn([put('a'), put('a')]))).toBe(refusals.duplicateKey)
  expect(checkTxn(txn([put('b'), remove('a', 'c')]))).toBe(refusals.duplicateKey)
  expect(checkTxn(txn([put('b'), remove('a', 'b')]))).toBeUndefined()
  expect(checkTxn(txn([remove('a', 'c'), remove('b')]))).toBeUndefined()
  expect(checkTxn(txn([put('a')], [put('a')]))).toBeUndefined()
  expect(checkTxn(txn([inner([put('a')], [put('a')])]))).toBeUndefined()
  expect(checkTxn(txn([put('a'), inner([put('a')])]))).toBe(refusals.duplicateKey)
  expect(checkTxn(txn([inner([put('a')]), inner([put('a')])]))).toBe(refusals.duplicateKey)
  expect(checkTxn(txn([put('a'), inner([], [remove('a')])]))).toBe(refusals.duplicateKey)
})

test('a snapshot taken in pieces shows the moment it was asked for', () => {
  const store = storeOf(['a', '1'], ['b', '2'])
  const pieces = encodeSnapshot(store)
  store.put({ key: bytes('a'), value: bytes('later') })
  store.compact(store.revision)
  const restored = new MvccStore()
  expect(restoreSnapshot(restored, Buffer.concat([...pieces]))).toBeUndefined()
  expect(restored.revision).toBe(3)
  expect(restored.get(bytes('a'))).toMatchObject({ value: Buffer.from('1') })
})

test('a damaged snapshot is told apart and changes nothing', () => {
  const bytesOf = Buffer.concat([...encodeSnapshot(storeOf(['a', '1']))])
  const store = storeOf(['z', '9'])
  const flipped = Buffer.from(bytesOf)
  flipped[bytesOf.length - 8]! ^= 1
  expect(restoreSnapshot(store, flipped)).toBe('checksum')
  expect(restoreSnapshot(store, bytesOf.subarray(0, 10))).toBe('truncated')
  expect(restoreSnapshot(store, bytesOf.subarray(0, bytesOf.length - 5))).toBe('checksum')
  expect(restoreSnapshot(store, Buffer.alloc(100))).toBe('not-a-snapshot')
  const newer = Buffer.from(bytesOf)
  newer.writeUInt32LE(2, 4)
  expect(restoreSnapshot(store, newer)).toBe('newer-format')
  expect(read(store, 'z', '')).toMatchObject({ count: 1 })
})

test('a snapshot is read in pieces of any size, and none of it is taken before its end is good', () => {
  const original = storeOf(['a', '1'], ['b', 'x'.repeat(3000)], ['a', '2'], ['c', ''])
  for (const id of [7n, 8n]) original.grantLease(id, 60)
  original.put({ key: bytes('d'), value: bytes('4'), lease: 8n })
  original.deleteRange({ key: bytes('b'), rangeEnd: bytes('') })
  const whole = Buffer.concat([...encodeSnapshot(original)])
  const decode = (from: Buffer, size: number) => {
    const store = storeOf(['z', '9'])
    const decoder = new SnapshotDecoder(store)
    for (let at = 0; at < from.length; at += size) inOnePiece(decoder.add(from.subarray(at, at + size)))
    expect(read(store, 'z', '')).toMatchObject({ count: 1 })
    return { problem: decoder.end(), store }
  }
  for (const size of [1, 7, 100, 1000, whole.length]) {
    const { problem, store } = decode(whole, size)
    expect(problem).toBeUndefined()
    expect(Buffer.concat([...encodeSnapshot(store)])).toEqual(whole)
    expect([...store.leases.get(8n)!.keys]).toEqual(['d'])
  }
  const flipped = Buffer.from(whole)
  flipped[whole.indexOf('xxx') + 5]! ^= 1
  for (const [bad, problem] of [
    [whole.subarray(0, 20), 'truncated'],
    [whole.subarray(0, 50), 'truncated'],
    [whole.subarray(0, whole.length - 1), 'truncated'],
    [Buffer.concat([whole, Buffer.alloc(1)]), 'checksum'],
    [flipped, 'checksum'],
    [Buffer.alloc(100), 'not-a-snapshot'],
  ] as const) {
    const decoded = decode(bad, 90)
    expect(decoded.problem).toBe(problem)
    expect(read(decoded.store, 'z', '')).toMatchObject({ count: 1 })
  }
})
