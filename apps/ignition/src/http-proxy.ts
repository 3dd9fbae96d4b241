import { type ClientRequest, type IncomingMessage, request as plainRequest } from 'node:http'
import type { RequestOptions } from 'node:https'
import type { Socket } from 'node:net'

/** What node's request needs to go through a proxy: another place to connect to, or a connection through it. */
export type ProxiedRequest = { options: RequestOptions; tunnel?: Socket }

const portOf: Record<string, number> = { 'http:': 80, 'https:': 443 }

/**
 * Options of a request by way of a proxy: plain http asks the proxy for the whole URL (RFC 9112, section 3.2.2), https
 * goes through a tunnel (RFC 9110, section 9.3.6). The proxy itself may speak TLS.
 */
export async function throughProxy(
  target: URL,
  proxy: URL,
  call: { headersTimeoutMs: number; signal?: AbortSignal | undefined; tls?: RequestOptions | undefined },
): Promise<ProxiedRequest> {
  const credentials =
    proxy.username === ''
      ? {}
      : {
          'Proxy-Authorization': `Basic ${Buffer.from(`${decoded(proxy.username)}:${decoded(proxy.password)}`).toString('base64')}`,
        }
  const place: RequestOptions = {
    protocol: proxy.protocol,
    hostname: proxy.hostname.replace(/^\[|\]$/g, ''),
    port: Number(proxy.port) || portOf[proxy.protocol],
    ...(proxy.protocol === 'https:' ? call.tls : {}),
    ...(call.signal ? { signal: call.signal } : {}),
  }
  if (target.protocol === 'http:') {
    const path = `${target.origin}${target.pathname}${target.search}`
    return { options: { ...place, path, headers: { Host: target.host, ...credentials } } }
  }
  const authority = `${target.hostname}:${target.port || portOf[target.protocol]}`
  const tunnel = await connect({
    ...place,
    method: 'CONNECT',
    path: authority,
    headers: { Host: authority, ...credentials },
    ...(call.headersTimeoutMs > 0 ? { timeout: call.headersTimeoutMs } : {}),
  })
  return { options: {}, tunnel }
}

const decoded = (text: string): string => decodeURIComponent(text)

async function connect(options: RequestOptions): Promise<Socket> {
  const send = options.protocol === 'https:' ? (await import('node:https')).request : plainRequest
  return new Promise((resolve, reject) => {
    const request: ClientRequest = send(options)
    request.once('connect', (reply: IncomingMessage, socket: Socket) => {
      if (reply.statusCode === 200) {
        resolve(socket)
        return
      }
      socket.destroy()
      reject(new Error(`the proxy answered ${reply.statusCode} to CONNECT`))
    })
    request.once('timeout', () => request.destroy(new Error('the proxy does not answer')))
    request.once('error', reject)
    request.end()
  })
}
