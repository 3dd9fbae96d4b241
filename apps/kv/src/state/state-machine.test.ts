import * as rpc from '@kiln/etcd-api/rpc'
import { type AuthChange, authRefusals, refusals } from '@kiln/mvcc'
import { expect, test } from 'vitest'
import { type Command, decodeCommand, encodeCommand, encodeCommandOf } from './command.ts'
import { type Proposer, proposerOf, withProposer } from './proposer.ts'
import { nextTurn } from './slices.ts'
import { StoreState } from './state-machine.ts'

const put = (key: string, value: string): Command => ({
  kind: 'put',
  request: rpc.PutRequest.encode(
    rpc.PutRequest.fromPartial({ key: Buffer.from(key), value: Buffer.from(value) }),
  ).finish(),
})
const apply = async (state: StoreState, ...commands: Command[]) =>
  state.apply(commands.map((command, at) => ({ index: at + 1, term: 1, data: encodeCommand(command) })))

async function snapshotOf(state: StoreState): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const piece of await state.snapshot()) pieces.push(piece)
  return Buffer.concat(pieces)
}

test('every command reads back as it was written', () => {
  const commands: Command[] = [
    put('a', '1'),
    { kind: 'delete', request: Buffer.from([1, 2]) },
    { kind: 'txn', request: Buffer.from([]) },
    { kind: 'compact', request: Buffer.from([9]) },
    { kind: 'lease-grant', id: -5n, ttl: 9_000_000_000 },
    { kind: 'lease-revoke', id: 0x7fff_ffff_ffff_ffffn },
    { kind: 'lease-expire', term: 7, ids: [1n, 2n] },
    { kind: 'lease-checkpoint', term: 7, leases: [{ id: 1n, remainingTtl: 55 }] },
    { kind: 'alarm', raise: true, member: 0xffff_ffff_ffff_ffffn, alarm: 'corrupt' },
    { kind: 'downgrade', target: { major: 3, minor: 4 } },
    { kind: 'downgrade', target: undefined },
  ]
  for (const command of commands) {
    const back = decodeCommand(encodeCommand(command))
    if ('request' in command && 'request' in back) {
      expect(Buffer.from(back.request)).toEqual(Buffer.from(command.request))
      expect(back.kind).toBe(command.kind)
    } else expect(back).toEqual(command)
  }
})

test('an entry of a newer version ends the member instead of being skipped', () => {
  expect(() => decodeCommand(Buffer.from([3, 0, 1]))).toThrow(/format 3/)
  expect(() => decodeCommand(Buffer.from([1, 99]))).toThrow(/kind 99/)
})

test('the no-space alarm refuses what grows the store and nothing else', async () => {
  const state = new StoreState()
  await apply(state, put('a', '1'), { kind: 'alarm', raise: true, member: 3n, alarm: 'nospace' })
  const refusedPut = { kind: 'put', outcome: { ok: false, refusal: refusals.noSpace } }
  expect(await apply(state, put('a', '2'))).toEqual([refusedPut])
  expect(await apply(state, { kind: 'lease-grant', id: 1n, ttl: 5 })).toMatchObject([
    { outcome: { ok: false } },
  ])
  const request = rpc.DeleteRangeRequest.encode(
    rpc.DeleteRangeRequest.fromPartial({ key: Buffer.from('a') }),
  ).finish()
  expect(await apply(state, { kind: 'delete', request })).toMatchObject([{ outcome: { ok: true } }])
  expect(await apply(state, { kind: 'alarm', raise: false, member: 0n, alarm: 'nospace' })).toEqual([
    { kind: 'alarm', alarms: [{ member: 3n, alarm: 'nospace' }] },
  ])
  expect(await apply(state, put('a', '3'))).toMatchObject([{ outcome: { ok: true } }])
})

test('a snapshot carries keys, leases and alarms, as of the moment it was asked for', async () => {
  const state = new StoreState()
  await apply(
    state,
    put('a', '1'),
    { kind: 'lease-grant', id: 5n, ttl: 10 },
    { kind: 'alarm', raise: true, member: 3n, alarm: 'corrupt' },
  )
  const pieces = state.snapshot()
  await apply(state, put('a', '2'), { kind: 'alarm', raise: false, member: 3n, alarm: 'corrupt' })
  const collected: Uint8Array[] = []
  for await (const piece of await pieces) collected.push(piece)
  let replaced = 0
  const restored = new StoreState()
  restored.listen({ onReplaced: () => replaced++ })
  await restored.restore(Buffer.concat(collected))
  expect(replaced).toBe(1)
  expect(restored.store.revision).toBe(2)
  expect(restored.store.leases.get(5n)).toMatchObject({ ttl: 10 })
  expect(restored.alarms.list()).toEqual([{ member: 3n, alarm: 'corrupt' }])
})

test('a snapshot is restored from pieces of any size', async () => {
  const state = new StoreState()
  await apply(
    state,
    put('a', '1'),
    { kind: 'alarm', raise: true, member: 3n, alarm: 'corrupt' },
    { kind: 'auth', change: { kind: 'role-add', name: 'reader' } },
  )
  const bytes = await snapshotOf(state)
  async function* pieces(size: number, end = bytes.length) {
    for (let at = 0; at < end; at += size) yield bytes.subarray(at, Math.min(at + size, end))
  }
  for (const size of [1, 11, bytes.length]) {
    const restored = new StoreState()
    await restored.restore(pieces(size))
    expect(await snapshotOf(restored)).toEqual(bytes)
  }
  for (const end of [0, 20, bytes.length - 1]) {
    await expect(new StoreState().restore(pieces(11, end))).rejects.toThrow(/truncated/)
  }
})

test('a damaged snapshot is refused', async () => {
  const state = new StoreState()
  await apply(state, put('a', '1'))
  const bytes = await snapshotOf(state)
  bytes[bytes.length - 1]! ^= 1
  await expect(new StoreState().restore(bytes)).rejects.toThrow(/checksum/)
  await expect(new StoreState().restore(Buffer.alloc(5))).rejects.toThrow(/none of this version/)
})

test('a command that touches very many keys takes turns, and what is behind it waits', async () => {
  const state = new StoreState()
  const count = 5000
  await apply(state, ...Array.from({ length: count }, (_, at) => put(`k${at}`, '1')))
  const all = { key: Buffer.from('k'), rangeEnd: Buffer.from('l') }
  const request = rpc.DeleteRangeRequest.encode(rpc.DeleteRangeRequest.fromPartial(all)).finish()
  let turns = 0
  const seen = new Set<number>()
  let isDone = false
  const applied = apply(state, put('x', '1'), { kind: 'delete', request }, put('k0', '2')).then((results) => {
    isDone = true
    return results
  })
  while (!isDone) {
    turns++
    const outcome = state.store.range({ ...all, countOnly: true })
    seen.add(outcome.ok ? outcome.value.count : -1)
    await nextTurn()
  }
  expect(turns).toBeGreaterThan(3)
  // All keys until it is done, and then no keys but the one that was put behind it.
  expect([...seen]).toEqual([count])
  expect(state.store.range({ ...all, countOnly: true })).toMatchObject({ value: { count: 1 } })
  expect(await applied).toMatchObject([
    { kind: 'put', outcome: { value: { revision: count + 2 } } },
    { kind: 'delete', outcome: { value: { revision: count + 3, deleted: count } } },
    { kind: 'put', outcome: { value: { revision: count + 4 } } },
  ])
})

const authChanges: AuthChange[] = [
  { kind: 'user-add', name: 'root', passwordHash: '$2b$', noPassword: false },
  { kind: 'user-grant', name: 'root', role: 'root' },
  { kind: 'user-add', name: 'älice', passwordHash: '', noPassword: true },
  { kind: 'role-add', name: 'r' },
  { kind: 'role-grant', name: 'r', permission: { type: 'readwrite', key: 'a\0\xff', rangeEnd: '\0' } },
  { kind: 'role-revoke', name: 'r', key: 'none', rangeEnd: '' },
  { kind: 'user-grant', name: 'älice', role: 'r' },
  { kind: 'enable' },
]
const authCommands = authChanges.map((change): Command => ({ kind: 'auth', change }))

test('changes of users and roles and who proposed an entry read back as they were written', () => {
  const commands: Command[] = [
    ...authCommands,
    { kind: 'authenticate', name: 'älice', authRevision: 7, prefix: 'abc' },
    put('a', '1'),
    { kind: 'lease-grant', id: -5n, ttl: 9 },
  ]
  for (const command of commands) {
    const entry = encodeCommand(command)
    expect(proposerOf(entry)).toBeUndefined()
    for (const proposer of ['member', { name: 'älice', revision: 2 ** 40 }] satisfies Proposer[]) {
      const authored = withProposer(entry, proposer)
      expect(proposerOf(authored)).toEqual(proposer)
      expect(Buffer.from(encodeCommandOf(command, proposer))).toEqual(Buffer.from(authored))
      expect(decodeCommand(authored)).toEqual(decodeCommand(entry))
    }
    if (!('request' in command)) expect(decodeCommand(entry)).toEqual(command)
  }
})

test('two members that apply the same have the same users and roles, also by way of a snapshot', async () => {
  const one = new StoreState()
  const other = new StoreState()
  for (const state of [one, other]) await apply(state, put('a', '1'), ...authCommands)
  expect(one.auth.exportState()).toEqual(other.auth.exportState())
  expect(one.auth.enabled).toBe(true)
  const third = new StoreState()
  await third.restore(await snapshotOf(one))
  expect(third.auth.exportState()).toEqual(one.auth.exportState())
  expect(third.store.revision).toBe(2)
})

test('a snapshot without users is one that an older version reads, and replaces the users there were', async () => {
  const plain = new StoreState()
  await apply(plain, put('a', '1'))
  const snapshot = await snapshotOf(plain)
  expect(snapshot.readUInt32LE(4)).toBe(1)
  const state = new StoreState()
  await apply(state, ...authCommands)
  expect((await snapshotOf(state)).readUInt32LE(4)).toBe(2)
  await state.restore(snapshot)
  expect(state.auth.exportState()).toEqual(new StoreState().auth.exportState())
})

test('the version of the store only rises, goes with snapshots, and one too high is refused', async () => {
  const one = new StoreState()
  await apply(
    one,
    put('a', '1'),
    { kind: 'raise-version', version: 2 },
    { kind: 'raise-version', version: 1 },
  )
  expect(one.version).toBe(2)
  const snapshot = await snapshotOf(one)
  expect(snapshot.readUInt32LE(4)).toBe(3)
  const other = new StoreState()
  await apply(other, ...authCommands)
  await other.restore(snapshot)
  expect([other.version, other.store.revision, other.auth.enabled]).toEqual([2, 2, false])
  await expect(apply(other, { kind: 'raise-version', version: 99 })).rejects.toThrow(/store version 99/)
})

test('a token is only given at the revision its password was found right at', async () => {
  const state = new StoreState()
  const given: string[] = []
  state.listen({ onTokenGiven: (name, token) => given.push(`${name} ${token}`) })
  const authenticate = (authRevision: number): Command => ({
    kind: 'authenticate',
    name: 'root',
    authRevision,
    prefix: 'abc',
  })
  expect(await apply(state, authenticate(1))).toMatchObject([
    { outcome: { refusal: authRefusals.notEnabled } },
  ])
  await apply(state, ...authCommands)
  const { revision } = state.auth
  expect(await apply(state, authenticate(revision - 1))).toMatchObject([
    { outcome: { refusal: authRefusals.oldRevision } },
  ])
  expect(await apply(state, authenticate(revision))).toMatchObject([
    { outcome: { value: { token: 'abc.1' } } },
  ])
  expect(given).toEqual(['root abc.1'])
})
