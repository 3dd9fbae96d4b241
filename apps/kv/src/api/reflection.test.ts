import * as health from '@kiln/etcd-api/health'
import { ServerReflectionRequest, ServerReflectionResponse } from '@kiln/etcd-api/reflection'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { grpcCall } from '../testing/grpc-call.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

let server: LoneServer
beforeAll(async () => {
  server = await startLoneServer()
})
afterAll(() => server.close())

type Ask = ServerReflectionRequest['messageRequest']

async function reflect(version: string, ...asks: Ask[]) {
  const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`
  const requests = asks.map((messageRequest) =>
    ServerReflectionRequest.encode({ host: 'here', messageRequest }).finish(),
  )
  const { code, replies } = await grpcCall(server.url, path, requests)
  expect(code).toBe(0)
  return replies.map((reply) => ServerReflectionResponse.decode(reply))
}

/** Name of a FileDescriptorProto: its first field. */
const nameOf = (file: Uint8Array): string => Buffer.from(file.subarray(2, 2 + file[1]!)).toString()

test('both versions of reflection list all services, themselves too', async () => {
  for (const version of ['v1', 'v1alpha']) {
    const [answer] = await reflect(version, { $case: 'listServices', value: '*' })
    const { messageResponse } = answer!
    if (messageResponse?.$case !== 'listServicesResponse') throw new Error('another answer')
    const names = messageResponse.value.service.map(({ name }) => name)
    for (const service of [
      'etcdserverpb.KV',
      'v3lockpb.Lock',
      `grpc.reflection.${version}.ServerReflection`,
    ]) {
      expect(names).toContain(service)
    }
  }
})

test('a symbol leads to its file with all that it imports', async () => {
  const symbols = [
    'etcdserverpb.KV',
    'etcdserverpb.KV.Range',
    'etcdserverpb.Compare.CompareTarget',
    'mvccpb.Event',
  ]
  const answers = await reflect(
    'v1',
    ...symbols.map((value): Ask => ({ $case: 'fileContainingSymbol', value })),
    { $case: 'fileByFilename', value: 'v3election.proto' },
  )
  const files = answers.map(({ messageResponse, validHost }) => {
    expect(validHost).toBe('here')
    return messageResponse?.$case === 'fileDescriptorResponse'
      ? messageResponse.value.fileDescriptorProto.map(nameOf)
      : []
  })
  const rpcFiles = ['rpc.proto', 'auth.proto', 'mvcc.proto']
  expect(files.map(([first]) => first)).toEqual([
    'rpc.proto',
    'rpc.proto',
    'rpc.proto',
    'mvcc.proto',
    'v3election.proto',
  ])
  expect([...files[0]!].sort()).toEqual([...rpcFiles].sort())
  expect([...files[4]!].sort()).toEqual(['v3election.proto', ...rpcFiles].sort())
})

test('what is not there is answered with an error in the stream', async () => {
  const answers = await reflect(
    'v1',
    { $case: 'fileByFilename', value: 'nothing.proto' },
    { $case: 'fileContainingSymbol', value: 'no.Such' },
    { $case: 'allExtensionNumbersOfType', value: 'etcdserverpb.KV' },
    undefined,
  )
  const codes = answers.map(({ messageResponse }) =>
    messageResponse?.$case === 'errorResponse' ? messageResponse.value.errorCode : 0,
  )
  expect(codes).toEqual([5, 5, 5, 3])
})

test('the health service knows the server and its services', async () => {
  const check = async (service: string) => {
    const request = health.HealthCheckRequest.encode({ service }).finish()
    const { code, message, replies } = await grpcCall(server.url, '/grpc.health.v1.Health/Check', [request])
    return code === 0 ? health.HealthCheckResponse.decode(replies[0]!).status : `${code} ${message}`
  }
  expect(await check('')).toBe(health.HealthCheckResponse_ServingStatus.SERVING)
  expect(await check('etcdserverpb.Lease')).toBe(health.HealthCheckResponse_ServingStatus.SERVING)
  expect(await check('no.Such')).toBe('5 unknown service')
})
