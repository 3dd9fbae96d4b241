import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  HealthCheckRequest,
  HealthCheckResponse,
  HealthCheckResponse_ServingStatus,
} from '@kiln/etcd-api/health'
import type { PodAction, PodContainer } from '@kiln/schemas'
import { describeError, Fault } from '@kiln/service'
import { createWireClient } from '@kiln/wire'

/** Of whom an action asks something: a container that runs. */
export type ActionTarget = {
  container: PodContainer
  /** Of its pod; the machine's for a pod in the machine's network. Absent for a pod without networks. */
  address: string | undefined
  /** Runs a program in the container; fails unless it ends with 0 in time. */
  exec(command: readonly string[], timeoutMs: number): Promise<void>
}

/** Does what a probe or a hook asks for, in Kubernetes' manner. Throws a `PROBE_FAILED` that says what was answered instead. */
export async function runAction(action: PodAction, target: ActionTarget, timeoutMs: number): Promise<void> {
  const hostOf = (host?: string): string => {
    const asked = host ?? target.address
    // Nothing of the machine may answer in the pod's place.
    if (asked === undefined) throw failed('the pod has no address: its probes and hooks can only be programs')
    return asked
  }
  const portOf = (port: number | string): number =>
    typeof port === 'number' ? port : target.container.ports.find(({ name }) => name === port)!.containerPort
  if (action.exec) await target.exec(action.exec.command, timeoutMs)
  else if (action.sleep) await sleep(action.sleep.seconds * 1000)
  else if (action.httpGet) {
    const { host, port, ...get } = action.httpGet
    await askHttp({ ...get, host: hostOf(host), port: portOf(port), timeoutMs })
  } else if (action.tcpSocket) {
    await openTcp(hostOf(action.tcpSocket.host), portOf(action.tcpSocket.port), timeoutMs)
  } else if (action.grpc) await askGrpc(hostOf(), action.grpc, timeoutMs)
}

const failed = (message: string): Fault => new Fault('PROBE_FAILED', message)

/** Any answer from 200 to 399 will do. The certificate is not checked: the address is no name that one could be for. */
async function askHttp(get: {
  host: string
  port: number
  path: string
  scheme: 'HTTP' | 'HTTPS'
  httpHeaders: readonly { name: string; value: string }[]
  timeoutMs: number
}): Promise<void> {
  const { host, port, path, timeoutMs } = get
  const url = `${get.scheme.toLowerCase()}://${host.includes(':') ? `[${host}]` : host}:${port}${path}`
  const own = get.httpHeaders.map(({ name, value }) => [name, value] as const)
  const headers = { 'user-agent': 'kiln-probe', ...Object.fromEntries(own) }
  await new Promise<void>((resolve, reject) => {
    const send = get.scheme === 'HTTPS' ? httpsRequest : httpRequest
    const signal = AbortSignal.timeout(timeoutMs)
    const sent = send({ host, port, path, headers, signal, agent: false, rejectUnauthorized: false })
    sent.on('response', (response) => {
      const status = response.statusCode ?? 0
      response.destroy()
      if (status >= 200 && status < 400) resolve()
      else reject(failed(`${url} was answered with ${status}`))
    })
    sent.on('error', (error) =>
      reject(
        failed(signal.aborted ? `${url} gave no answer within ${timeoutMs} ms` : `${url}: ${error.message}`),
      ),
    )
    sent.end()
  })
}

async function openTcp(host: string, port: number, timeoutMs: number): Promise<void> {
  const socket = connect({ host, port })
  try {
    await new Promise<void>((resolve, reject) => {
      socket.setTimeout(timeoutMs, () =>
        reject(failed(`port ${port} of ${host} did not answer within ${timeoutMs} ms`)),
      )
      socket.once('connect', () => resolve())
      socket.once('error', (error) => reject(failed(`port ${port} of ${host}: ${error.message}`)))
    })
  } finally {
    socket.destroy()
  }
}

/** The health service of gRPC: `SERVING` and nothing else. */
async function askGrpc(
  host: string,
  { port, service }: { port: number; service: string },
  timeoutMs: number,
): Promise<void> {
  const client = createWireClient({ host, port })
  const asked = `health of ${service || 'the server'} at ${host}:${port}`
  try {
    const request = HealthCheckRequest.encode({ service }).finish()
    const answer = await client
      .unary('/grpc.health.v1.Health/Check', request, { timeoutMs })
      .catch((error) => {
        throw failed(`${asked}: ${describeError(error)}`)
      })
    const { status } = HealthCheckResponse.decode(answer)
    if (status !== HealthCheckResponse_ServingStatus.SERVING)
      throw failed(`${asked} is ${statusName(status)}`)
  } finally {
    client.close()
  }
}

const statusName = (status: number): string =>
  Object.entries(HealthCheckResponse_ServingStatus).find(([, value]) => value === status)?.[0] ?? `${status}`
