import { createServer as createHttp, type Server } from 'node:http'
import { type AddressInfo, createServer as createTcp, type Server as TcpServer } from 'node:net'
import { HealthCheckResponse_ServingStatus as Health, HealthCheckResponse } from '@kiln/etcd-api/health'
import { type PodAction, parsePod } from '@kiln/schemas'
import { assert } from '@kiln/service'
import { createWireServer } from '@kiln/wire'
import { afterEach, expect, test } from 'vitest'
import { type ActionTarget, runAction } from './container-actions.ts'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

const listen = async (server: Server | TcpServer): Promise<number> => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closers.push(() => server.close())
  return (server.address() as AddressInfo).port
}

/** The action as a pod's hook or probe would have it, with the defaults. */
function target(webPort: number): ActionTarget {
  const { pod, problems } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'hello' },
    spec: {
      containers: [{ name: 'web', image: 'oci:/x', ports: [{ name: 'web', containerPort: webPort }] }],
    },
  })
  assert(pod, JSON.stringify(problems))
  return { container: pod.spec.containers[0]!, address: '127.0.0.1', exec: async () => undefined }
}

const get = (port: number | string, path: string): PodAction => ({
  httpGet: { path, port, scheme: 'HTTP', httpHeaders: [{ name: 'X-Probe', value: 'yes' }] },
})

test('an answer from 200 to 399 is a success, and anything else says what it was', async () => {
  const asked: unknown[] = []
  const server = createHttp((request, response) => {
    asked.push([request.url, request.headers['x-probe'], request.headers['user-agent']])
    if (request.url === '/hang') return
    response.writeHead(Number(request.url?.slice(1)), { location: '/500' }).end()
  })
  const port = await listen(server)
  closers.push(() => server.closeAllConnections())
  for (const status of [200, 204, 302, 399]) await runAction(get('web', `/${status}`), target(port), 5000)
  expect(asked[0]).toEqual(['/200', 'yes', 'kiln-probe'])
  expect(asked).toHaveLength(4)
  for (const status of [400, 404, 503])
    await expect(runAction(get(port, `/${status}`), target(1), 5000)).rejects.toMatchObject({
      code: 'PROBE_FAILED',
      message: expect.stringContaining(`was answered with ${status}`),
    })
  await expect(runAction(get(port, '/hang'), target(1), 200)).rejects.toThrow(/no answer within 200 ms/)
})

test('a port that takes connections is a success, one that does not is a failure', async () => {
  const server = createTcp((socket) => socket.destroy())
  const port = await listen(server)
  await runAction({ tcpSocket: { port } }, target(1), 5000)
  await new Promise((resolve) => server.close(resolve))
  await expect(runAction({ tcpSocket: { port } }, target(1), 5000)).rejects.toMatchObject({
    code: 'PROBE_FAILED',
    message: expect.stringContaining('ECONNREFUSED'),
  })
})

test('a gRPC server must say that it serves', async () => {
  let status: Health = Health.SERVING
  const server = createWireServer()
  server.unary('/grpc.health.v1.Health/Check', () => HealthCheckResponse.encode({ status }).finish())
  closers.push(() => server.close({ graceMs: 0 }))
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 })
  const ask = (): Promise<void> => runAction({ grpc: { port, service: '' } }, target(1), 5000)
  await ask()
  status = Health.NOT_SERVING
  await expect(ask()).rejects.toThrow(/health of the server at .* is NOT_SERVING/)
})

test('nothing of the machine answers for a pod that has no address', async () => {
  const port = await listen(createTcp((socket) => socket.end()))
  const alone = { ...target(port), address: undefined }
  for (const action of [get('web', '/'), { tcpSocket: { port } }, { grpc: { port, service: '' } }])
    await expect(runAction(action, alone, 1000)).rejects.toMatchObject({
      code: 'PROBE_FAILED',
      message: expect.stringContaining('has no address'),
    })
})
