import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { Fault } from '@kiln/service'

export type HttpRequest = {
  method?: 'GET' | 'HEAD' | 'POST'
  headers?: Record<string, string>
  body?: string
  signal: AbortSignal
  /** Certificates (PEM) to trust instead of the system's. */
  ca?: string | undefined
  /** Headers that only the first host may see. */
  secrets?: readonly string[]
}

/** How long a server may say nothing. */
const silenceMs = 30_000
const redirectsMax = 5

/**
 * A request that follows redirects; secrets stay with the host they were for, and nothing goes from TLS to plain text. Not
 * fetch(): loading it costs seconds of processor time on an emulated machine.
 */
export async function openUrl(url: string, wanted: HttpRequest): Promise<IncomingMessage> {
  let target = url
  let headers = wanted.headers ?? {}
  for (let hops = 0; hops <= redirectsMax; hops++) {
    const response = await send(target, { ...wanted, headers })
    const { location } = response.headers
    if (location === undefined || (response.statusCode ?? 0) < 300 || (response.statusCode ?? 0) > 399)
      return response
    response.destroy()
    const next = new URL(location, target)
    if (target.startsWith('https:') && next.protocol !== 'https:')
      throw new Fault('IMAGE_DOWNLOAD_FAILED', `${url} redirects from TLS to ${next.protocol}//${next.host}`)
    if (next.host !== new URL(target).host) headers = without(headers, wanted.secrets ?? [])
    target = next.href
  }
  throw new Fault('IMAGE_DOWNLOAD_FAILED', `${url} redirects more than ${redirectsMax} times`)
}

const without = (headers: Record<string, string>, names: readonly string[]): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)))

function send(url: string, wanted: HttpRequest): Promise<IncomingMessage> {
  const { method = 'GET', headers, signal, ca, body } = wanted
  return new Promise((resolve, reject) => {
    const isTls = url.startsWith('https:')
    const options = { method, headers, signal, timeout: silenceMs, ...(isTls && ca ? { ca } : {}) }
    const outgoing = (isTls ? httpsRequest : httpRequest)(url, options, resolve)
    outgoing.on('timeout', () => outgoing.destroy(new Error(`nothing heard for ${silenceMs} ms`)))
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

/** The whole body of an answer; one that is larger than `bytesMax` is a Fault. */
export async function readBody(response: IncomingMessage, bytesMax: number, what: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > bytesMax) throw new Fault('IMAGE_TOO_LARGE', `${what} is larger than ${bytesMax} bytes`)
      chunks.push(chunk)
    }
  } finally {
    response.destroy()
  }
  return Buffer.concat(chunks)
}
