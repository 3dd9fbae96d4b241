import { Permission_Type } from '@kiln/etcd-api/auth'
import * as history from '@kiln/etcd-api/history'
import { afterEach, expect, test } from 'vitest'
import { decodeCommand, encodeCommand } from '../state/command.ts'
import { firstStoreVersion, restoreStoreVersion, storeVersion } from '../state/store-version.ts'
import { authCalls, enableAuth, outcomeOf } from '../testing/auth-calls.ts'
import { grpcCall } from '../testing/grpc-call.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function start(flags: string[] = [], version = storeVersion): Promise<LoneServer> {
  const server = await startLoneServer(['--bcrypt-cost=4', ...flags])
  ends.push(() => server.close())
  if (version > firstStoreVersion)
    await server.context.consensus.propose(encodeCommand({ kind: 'raise-version', version }))
  return server
}

const bytes = (text: string): Buffer => Buffer.from(text)
const prefix = { key: bytes('k/'), rangeEnd: bytes('k0') }

function call(url: string, method: string, request: Uint8Array, token?: string) {
  return grpcCall(url, `/kiln.history.v1.History/${method}`, [request], token === undefined ? {} : { token })
}
const restoreOf = (revision: number, more: object = {}): Uint8Array =>
  history.RestoreRequest.encode(
    history.RestoreRequest.fromPartial({ ...prefix, revision: BigInt(revision), ...more }),
  ).finish()
const restore = async (url: string, revision: number, token?: string, more?: object): Promise<string> =>
  outcomeOf(await call(url, 'Restore', restoreOf(revision, more), token))

const revisionAt = (url: string, timeMs: number, token?: string) =>
  call(
    url,
    'RevisionAt',
    history.RevisionAtRequest.encode(
      history.RevisionAtRequest.fromPartial({ timeMs: BigInt(timeMs) }),
    ).finish(),
    token,
  )

const notSeen = '11 etcdserver: history: the store knows no times before its first mark'

test('the revision of a time is told, of what the log says and not of a clock here', async () => {
  const { url, context } = await start()
  const mark = (timeMs: number) => context.consensus.propose(encodeCommand({ kind: 'mark-time', timeMs }))
  const { put } = authCalls(url)
  await mark(1_000)
  await put('k/a', '1')
  await put('k/a', '2')
  await mark(2_000)
  await put('k/a', '3')
  // The next leader's clock is behind: times do not go back.
  await mark(1_500)
  const at = async (timeMs: number) =>
    history.RevisionAtResponse.decode((await revisionAt(url, timeMs)).replies[0]!)
  expect(outcomeOf(await revisionAt(url, 999))).toBe(notSeen)
  expect(await at(1_999)).toMatchObject({ revision: 1n, seenMs: 1_000n })
  expect(await at(2_000)).toMatchObject({ revision: 4n, seenMs: 2_000n })
})

test('a store that is older than its times says so, and an old cluster that it knows none', async () => {
  const old = await start([], restoreStoreVersion)
  expect(outcomeOf(await revisionAt(old.url, 5))).toBe(
    '9 etcdserver: history: not all members run a version that knows times',
  )
  await authCalls(old.url).put('k/a', '1')
  await old.context.consensus.propose(encodeCommand({ kind: 'raise-version', version: storeVersion }))
  await old.context.consensus.propose(encodeCommand({ kind: 'mark-time', timeMs: 10_000 }))
  expect(outcomeOf(await revisionAt(old.url, 9_999))).toBe(notSeen)
  expect(outcomeOf(await revisionAt(old.url, 10_000))).toBe('0 ')
})

test('revisions, deleted keys and differences are told, and a range is restored', async () => {
  const { url, context } = await start()
  const { put } = authCalls(url)
  await put('k/a', '1')
  await put('k/b', '1')
  await put('k/a', '2')
  context.state.store.deleteRange({ key: bytes('k/b'), rangeEnd: new Uint8Array() })
  const revisions = history.RevisionsResponse.decode(
    (
      await call(
        url,
        'Revisions',
        history.RevisionsRequest.encode(history.RevisionsRequest.fromPartial({ key: bytes('k/b') })).finish(),
      )
    ).replies[0]!,
  )
  expect(revisions.changes.map(({ kind, kv }) => [kind, kv?.modRevision])).toEqual([
    [history.Change_Kind.DELETE, 5n],
    [history.Change_Kind.PUT, 3n],
  ])
  const deleted = history.DeletedResponse.decode(
    (
      await call(
        url,
        'Deleted',
        history.DeletedRequest.encode(history.DeletedRequest.fromPartial(prefix)).finish(),
      )
    ).replies[0]!,
  )
  expect(deleted.keys).toMatchObject([{ deletedRevision: 5n, last: { modRevision: 3n } }])
  const asked = history.DiffRequest.fromPartial({ ...prefix, fromRevision: 3n })
  const diff = history.DiffResponse.decode(
    (await call(url, 'Diff', history.DiffRequest.encode(asked).finish())).replies[0]!,
  )
  expect(diff.differences.map(({ before, after }) => [before?.modRevision, after?.modRevision])).toEqual([
    [2n, 4n],
    [3n, undefined],
  ])
  const answer = await call(url, 'Restore', restoreOf(3))
  expect(history.RestoreResponse.decode(answer.replies[0]!)).toMatchObject({
    put: 2n,
    deleted: 0n,
    header: { revision: 6n },
  })
  expect(context.state.store.get(bytes('k/a'))).toMatchObject({ value: bytes('1'), modRevision: 6 })
})

test('a compacted, a future and a missing revision are refused as such', async () => {
  const { url, context } = await start()
  const { put } = authCalls(url)
  for (const value of ['1', '2', '3']) await put('k/a', value)
  context.state.store.compact(3)
  expect(await restore(url, 2)).toBe('11 etcdserver: mvcc: required revision has been compacted')
  expect(await restore(url, 9)).toBe('11 etcdserver: mvcc: required revision is a future revision')
  expect(await restore(url, 0)).toBe('3 etcdserver: history: revision is not provided')
  expect(await restore(url, 3, undefined, { key: new Uint8Array() })).toBe(
    '3 etcdserver: key is not provided',
  )
  const asked = history.DiffRequest.fromPartial({ ...prefix, fromRevision: 2n })
  expect(outcomeOf(await call(url, 'Diff', history.DiffRequest.encode(asked).finish()))).toContain(
    'compacted',
  )
  expect(context.state.store.revision).toBe(4)
})

test('a restore that would change more than allowed, or need more room than there is, changes nothing', async () => {
  const { url, context } = await start(['--quota-backend-bytes=3000'])
  const { put } = authCalls(url)
  const value = 'x'.repeat(700)
  await put('k/a', value)
  await put('k/b', value)
  context.state.store.deleteRange({ key: bytes('k/'), rangeEnd: bytes('k0') })
  expect(await restore(url, 3, undefined, { changesMax: 1n })).toBe(
    '8 etcdserver: history: more keys would change than allowed',
  )
  expect(await restore(url, 3)).toBe('8 etcdserver: mvcc: database space exceeded')
  expect(context.state.store.revision).toBe(4)
})

test('no member is sent an entry that its program cannot read', async () => {
  const { url } = await start([], firstStoreVersion)
  await authCalls(url).put('k/a')
  expect(await restore(url, 2)).toBe('9 etcdserver: history: not all members run a version that can restore')
})

test('to restore a range takes the right to read and to write it, when the entry is applied', async () => {
  const { url, context } = await start()
  await authCalls(url).put('k/a', '1')
  await authCalls(url).put('k/a', '2')
  const { root } = await enableAuth(url)
  for (const [name, right] of [
    ['reader', Permission_Type.READ],
    ['writer', Permission_Type.WRITE],
    ['both', Permission_Type.READWRITE],
  ] as const) {
    await root.userAdd(name, 'p')
    await root.roleAdd(name)
    await root.roleGrant(name, 'k/', 'k0', right)
    await root.userGrant(name, name)
  }
  const denied = '7 etcdserver: permission denied'
  for (const name of ['reader', 'writer'])
    expect(await restore(url, 2, (await authCalls(url).authenticate(name, 'p')).token), name).toBe(denied)
  const { token } = await authCalls(url).authenticate('both', 'p')
  expect(await restore(url, 2)).toBe('3 etcdserver: user name is empty')
  // The right is taken away between the proposal and its place in the log.
  const { consensus } = context
  context.consensus = {
    ...consensus,
    propose: async (entry) => {
      context.consensus = consensus
      await root.roleRevoke('both', 'k/', 'k0')
      return consensus.propose(entry)
    },
  }
  expect(await restore(url, 2, token)).not.toBe('0 ')
  expect(context.state.store.get(bytes('k/a'))?.value).toEqual(bytes('2'))
  await root.roleGrant('both', 'k/', 'k0')
  const again = (await authCalls(url).authenticate('both', 'p')).token
  expect(await restore(url, 2, again)).toBe('0 ')
  expect(context.state.store.get(bytes('k/a'))?.value).toEqual(bytes('1'))
})

test('the entry of a restore is small and comes back from its bytes', () => {
  const command = {
    kind: 'restore' as const,
    request: Buffer.from(restoreOf(7)),
    changesMax: 9,
    bytesMax: 2 ** 40,
  }
  const entry = encodeCommand(command)
  expect(entry.length).toBeLessThan(64)
  expect(decodeCommand(entry)).toEqual(command)
})
