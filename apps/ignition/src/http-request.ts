import { type ClientRequest, type IncomingMessage, request as plainRequest } from 'node:http'
import type { RequestOptions } from 'node:https'
import { Fault } from '@kiln/service'
import { throughProxy } from './http-proxy.ts'
import { withScheme } from './proxy-rules.ts'

export type HttpReply = { status: number; headers: IncomingMessage['headers']; body: Buffer }

export type HttpCall = {
  url: string
  method?: 'GET' | 'POST' | 'PUT'
  headers?: Record<string, string>
  body?: string
  /** Time until the response's headers; 0 waits for ever. */
  headersTimeoutMs: number
  bodyBytesMax: number
  signal?: AbortSignal | undefined
  tls?: RequestOptions
  /** Proxy to go through. */
  proxy?: string | undefined
}

/** Time without a byte after which a transfer counts as broken. */
const idleTimeoutMs = 30_000

/** Sends requests; a port, so that tests can answer. Throws on transport errors only. */
export type Http = (call: HttpCall) => Promise<HttpReply>

/**
 * One request over node:http. Not fetch(): loading undici costs an emulated machine a second at start, and
 * node:https is loaded only when an https URL comes.
 */
export const sendHttp: Http = async (call) => {
  const url = new URL(call.url)
  const secure = url.protocol === 'https:'
  const proxied = call.proxy ? await throughProxy(url, new URL(withScheme(call.proxy)), call) : undefined
  // What is asked of the proxy in the clear goes to the proxy with its own scheme.
  const overTls = proxied && !proxied.tunnel ? proxied.options.protocol === 'https:' : secure
  const send = overTls ? (await import('node:https')).request : plainRequest
  return new Promise((resolve, reject) => {
    const options: RequestOptions = {
      ...proxied?.options,
      method: call.method ?? 'GET',
      headers: {
        ...(proxied?.options.headers as Record<string, string> | undefined),
        ...call.headers,
        ...(call.body === undefined ? {} : { 'Content-Length': Buffer.byteLength(call.body) }),
      },
      ...(call.signal ? { signal: call.signal } : {}),
      ...(overTls ? call.tls : {}),
      ...(proxied?.tunnel ? { socket: proxied.tunnel, agent: false } : {}),
    } as RequestOptions
    const answered = (reply: IncomingMessage): void => {
      clearTimeout(timer)
      collect(reply, call.bodyBytesMax, request).then(resolve, reject)
    }
    const request = proxied && !proxied.tunnel ? send(options, answered) : send(url, options, answered)
    const timer =
      call.headersTimeoutMs > 0
        ? setTimeout(
            () => request.destroy(new Error(`no answer within ${call.headersTimeoutMs / 1000} s`)),
            call.headersTimeoutMs,
          )
        : undefined
    request.setTimeout(idleTimeoutMs, () =>
      request.destroy(new Error(`no data for ${idleTimeoutMs / 1000} s`)),
    )
    request.on('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
    request.end(call.body)
  })
}

function collect(reply: IncomingMessage, bytesMax: number, request: ClientRequest): Promise<HttpReply> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    reply.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > bytesMax) {
        const problem = new Fault('RESOURCE_TOO_LARGE', `the answer has more than ${bytesMax} bytes`)
        request.destroy(problem)
        reject(problem)
      } else chunks.push(chunk)
    })
    reply.on('error', reject)
    reply.on('aborted', () => reject(new Error('the connection broke within the answer')))
    reply.on('end', () => {
      if (reply.complete) {
        resolve({ status: reply.statusCode ?? 0, headers: reply.headers, body: Buffer.concat(chunks) })
      } else reject(new Error('the connection broke within the answer'))
    })
  })
}
