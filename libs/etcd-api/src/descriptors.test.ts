import { expect, test } from 'vitest'
import { methodCodec, protocolFiles } from './descriptors.ts'
import { TxnRequest, WatchResponse } from './generated/rpc.ts'

test('a method is found by its path, with what streams', () => {
  expect(methodCodec('/etcdserverpb.Watch/Watch')).toMatchObject({ clientStreams: true, serverStreams: true })
  expect(methodCodec('/v3electionpb.Election/Observe')).toMatchObject({
    clientStreams: false,
    serverStreams: true,
  })
  expect(methodCodec('/etcdserverpb.KV/Nothing')).toBeUndefined()
  expect(methodCodec('nonsense')).toBeUndefined()
})

test('JSON becomes the bytes that the generated codecs read', () => {
  const { requestFromJson } = methodCodec('/etcdserverpb.KV/Txn')!
  const bytes = requestFromJson({
    compare: [{ key: 'YQ==', target: 'VALUE', result: 1, value: 'MQ==' }],
    success: [{ requestPut: { key: 'YQ==', lease: '9223372036854775807', prevKv: true } }],
    failure: [{ request_txn: {} }],
  })
  expect(TxnRequest.decode(bytes)).toMatchObject({
    compare: [{ target: 3, result: 1, targetUnion: { $case: 'value', value: Uint8Array.of(0x31) } }],
    success: [{ request: { $case: 'requestPut', value: { lease: 9223372036854775807n, prevKv: true } } }],
    failure: [{ request: { $case: 'requestTxn' } }],
  })
  expect(() => requestFromJson({ compare: 'x' })).toThrow(/compare/)
})

test('responses have the names of the protocol files and no defaults', () => {
  const message = WatchResponse.fromPartial({ watchId: 3n, compactRevision: 7n, canceled: true })
  const bytes = WatchResponse.encode(message).finish()
  expect(methodCodec('/etcdserverpb.Watch/Watch')!.responseToJson(bytes)).toEqual({
    watch_id: '3',
    compact_revision: '7',
    canceled: true,
  })
})

test('every protocol file is there with its imports and symbols', () => {
  const files = new Map(protocolFiles().map((file) => [file.name, file]))
  expect(files.get('v3lock.proto')).toMatchObject({ imports: ['rpc.proto'] })
  expect(files.get('rpc.proto')!.symbols).toContain('etcdserverpb.StatusResponse.downgradeInfo')
  for (const { imports, bytes } of files.values()) {
    for (const name of imports) expect(files.has(name), name).toBe(true)
    expect(bytes.length).toBeGreaterThan(0)
  }
})
