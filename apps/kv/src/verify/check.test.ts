import { expect, test } from 'vitest'
import { type Evidence, findViolations } from './check.ts'
import type { Asked, Observed, Recorded, Told } from './observed.ts'

let ids = 0
const op = (at: [number, number?], asked: Asked, told?: Told, refused?: string): Observed => ({
  id: ++ids,
  client: 0,
  asked,
  calledAt: at[0],
  member: 'm1',
  ...(at[1] === undefined ? {} : { returnedAt: at[1] }),
  ...(told ? { told } : {}),
  ...(refused === undefined ? {} : { refused }),
})
const put = (key: string, value: string, lease?: string): Asked => ({
  kind: 'put',
  key,
  value,
  ...(lease ? { lease } : {}),
})
const all: Asked = { kind: 'range', from: 'a', to: 'z' }
const history: Recorded[] = [
  { revision: 2, key: 'a', value: '1' },
  { revision: 3, key: 'b', value: '2' },
]
const written = (): Observed[] => [
  op([0, 1], put('a', '1'), { revision: 2 }),
  op([2, 3], put('b', '2'), { revision: 3 }),
]
const rules = (evidence: Partial<Evidence>): string[] =>
  findViolations({ operations: written(), history, watches: [], leases: new Map(), ...evidence }).map(
    ({ rule }) => rule,
  )

test('a run that is as it says has no violations', () => {
  const operations = [
    ...written(),
    op([4, 5], all, {
      revision: 3,
      found: [
        { key: 'a', value: '1' },
        { key: 'b', value: '2' },
      ],
    }),
    // Beside the second put: before it or behind it.
    op([2, 4], all, { revision: 2, found: [{ key: 'a', value: '1' }] }),
  ]
  const watch = { member: 'm1', changes: history, seenAt: [1, 2] }
  expect(rules({ operations, watches: [watch] })).toEqual([])
})

test('a read that is older than what had returned is found', () => {
  expect(
    rules({
      operations: [...written(), op([4, 5], all, { revision: 2, found: [{ key: 'a', value: '1' }] })],
    }),
  ).toEqual(['real time'])
})

test('an acknowledged write that is not there is found', () => {
  expect(rules({ history: history.slice(0, 1) })).toContain('lost write')
  expect(
    rules({
      operations: [...written(), op([4, 5], { kind: 'delete', key: 'a' }, { revision: 3, done: true })],
    }),
  ).toContain('lost write')
})

test('a read that misses a key, or has one too many, is found', () => {
  expect(
    rules({
      operations: [...written(), op([4, 5], all, { revision: 3, found: [{ key: 'a', value: '1' }] })],
    }),
  ).toEqual(['wrong answer'])
  expect(
    rules({
      operations: [...written(), op([4, 5], { kind: 'delete', key: 'a' }, { revision: 3, done: false })],
    }),
  ).toEqual(['wrong answer'])
})

test('a write without an answer may have happened or not, but not before it was asked', () => {
  const [first] = written()
  expect(rules({ operations: [first!, op([2], put('b', '2'))] })).toEqual([])
  expect(rules({ operations: [first!, op([2], put('b', '2'))], history: history.slice(0, 1) })).toEqual([])
  const late = [op([2], put('b', '2')), op([0, 1], put('a', '1'), { revision: 4 })]
  expect(
    rules({
      operations: late,
      history: [
        { revision: 3, key: 'b', value: '2' },
        { revision: 4, key: 'a', value: '1' },
      ],
    }),
  ).toEqual(['real time'])
})

test('a refused write that happened, and a change that nobody asked for, are found', () => {
  const [first] = written()
  expect(rules({ operations: [first!, op([2, 3], put('b', '2'), undefined, 'STORE_NO_LEADER')] })).toEqual([
    'origin',
  ])
  expect(rules({ operations: [first!] })).toEqual(['origin'])
  expect(rules({ history: [...history, { revision: 4, key: 'a', value: undefined }] })).toEqual(['origin'])
})

test('a transaction sees the state before it, and all or nothing of it happens', () => {
  const txn: Asked = {
    kind: 'txn',
    compare: { key: 'a', value: '1' },
    puts: [{ key: 'c', value: '3' }],
    deletes: ['b'],
    from: 'a',
    to: 'z',
  }
  const after = [
    ...history,
    { revision: 4, key: 'c', value: '3' },
    { revision: 4, key: 'b', value: undefined },
  ]
  const found = [
    { key: 'a', value: '1' },
    { key: 'b', value: '2' },
  ]
  expect(
    rules({
      operations: [...written(), op([4, 5], txn, { revision: 4, done: true, found })],
      history: after,
    }),
  ).toEqual([])
  expect(
    rules({
      operations: [...written(), op([4, 5], txn, { revision: 4, done: true, found: [] })],
      history: after,
    }),
  ).toEqual(['wrong answer'])
  expect(rules({ operations: [...written(), op([4, 5], txn, { revision: 3, done: false, found })] })).toEqual(
    ['wrong answer'],
  )
})

test('a watcher that misses a change, hears one twice or in another order is found', () => {
  for (const changes of [
    history.slice(1),
    [history[0]!, history[0]!],
    [...history].reverse(),
    history.slice(0, 1),
    [...history, history[1]!],
  ])
    expect(rules({ watches: [{ member: 'm1', changes, seenAt: changes.map(() => 1) }] })).toEqual(['watch'])
})

test('a gap in the revisions is found', () => {
  expect(
    rules({
      operations: [op([0, 1], put('a', '1'), { revision: 2 }), op([2, 3], put('b', '2'), { revision: 9 })],
      history: [history[0]!, { revision: 9, key: 'b', value: '2' }],
    }),
  ).toEqual(['history'])
})

test('a lease that ends too early is found, one that ends in time or was revoked is none', () => {
  const expired = [
    { revision: 2, key: 'a', value: '1' },
    { revision: 3, key: 'a', value: undefined },
  ]
  const leases = new Map([['7', { renewedAt: 100, ttlMs: 1000 }]])
  const ended = (at: number, more: Observed[] = []): string[] =>
    rules({
      operations: [op([0, 1], put('a', '1', '7'), { revision: 2 }), ...more],
      history: expired,
      watches: [{ member: 'm1', changes: expired, seenAt: [1, at] }],
      leases,
    })
  expect(ended(1100)).toEqual([])
  expect(ended(900)).toEqual(['lease'])
  expect(ended(900, [op([850], { kind: 'lease-revoke', lease: '7' })])).toEqual([])
})
