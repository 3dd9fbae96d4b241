import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import type { Digest } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { openUrl, readBody } from '../http.ts'
import { answerChallenge } from './authorization.ts'
import type { Credentials } from './credentials.ts'
import type { Endpoint } from './registries.ts'

export type RegistryClientOptions = {
  endpoint: Endpoint
  repository: string
  credentials: Credentials | undefined
  signal: AbortSignal
  /** First pause between tries; each is twice as long as the one before. */
  backoffMs?: number
}

export type Document = { bytes: Buffer; digest: Digest; mediaType: string }

export const manifestTypes = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
] as const

const documentBytesMax = 4 << 20
const triesMax = 5
const pauseMsMax = 30_000

/** One repository of one registry (distribution-spec): manifests and blobs, with whatever authorization it asks for. */
export class RegistryClient {
  readonly #options: RegistryClientOptions
  #authorization: string | undefined

  constructor(options: RegistryClientOptions) {
    this.#options = options
  }

  /** A manifest or an index, by tag or digest. A digest is checked, also the one that the registry states. */
  async manifest(reference: string): Promise<Document> {
    const path = `manifests/${encodeURIComponent(reference).replace('%3A', ':')}`
    const response = await this.#get(path, { accept: manifestTypes.join(', ') })
    const bytes = await readBody(response, documentBytesMax, `manifest ${reference}`)
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
    const stated = response.headers['docker-content-digest']
    for (const promised of [reference, typeof stated === 'string' ? stated : '']) {
      if (promised.startsWith('sha256:') && promised !== digest)
        throw new Fault('IMAGE_DIGEST_MISMATCH', `the manifest ${promised} that came has digest ${digest}`)
    }
    return { bytes, digest, mediaType: (response.headers['content-type'] ?? '').split(';')[0]!.trim() }
  }

  /** The bytes of a blob from an offset on; the answer says by its status (200, 206 or 416) what it holds. */
  async blob(digest: Digest, from = 0): Promise<IncomingMessage> {
    return await this.#get(`blobs/${digest}`, {
      'accept-encoding': 'identity',
      ...(from > 0 ? { range: `bytes=${from}-` } : {}),
    })
  }

  async #get(path: string, headers: Record<string, string>): Promise<IncomingMessage> {
    const { endpoint, repository, signal, backoffMs = 250 } = this.#options
    const url = `${endpoint.url}/v2/${repository}/${path}`
    for (let round = 1; ; round++) {
      let failure: unknown
      try {
        const response = await this.#try(url, headers)
        const status = response.statusCode ?? 0
        if (status !== 429 && status < 500) return await this.#accept(response, url)
        failure = new Fault('IMAGE_DOWNLOAD_FAILED', `${url} answers ${status}`)
        response.destroy()
        if (round < triesMax)
          await pause(retryAfterMs(response) ?? backoffMs * 2 ** (round - 1), undefined, { signal })
      } catch (error) {
        if (error instanceof Fault || signal.aborted) throw error
        failure = new Fault('IMAGE_DOWNLOAD_FAILED', `${url} cannot be reached`, { cause: error })
        if (round < triesMax) await pause(backoffMs * 2 ** (round - 1), undefined, { signal })
      }
      if (round >= triesMax) throw failure
    }
  }

  /** Answers a challenge once: what it gave may have run out since. */
  async #try(url: string, headers: Record<string, string>): Promise<IncomingMessage> {
    const { endpoint, repository, signal } = this.#options
    const send = (): Promise<IncomingMessage> =>
      openUrl(url, {
        headers: this.#authorization ? { ...headers, authorization: this.#authorization } : headers,
        secrets: ['authorization'],
        signal,
        ca: endpoint.ca,
      })
    const response = await send()
    const challenge = response.headers['www-authenticate']
    if (response.statusCode !== 401 || !challenge) return response
    response.destroy()
    const credentials = endpoint.isMirror ? undefined : this.#options.credentials
    const { ca } = endpoint
    this.#authorization = await answerChallenge({ challenge, repository, credentials, signal, ca })
    if (!this.#authorization)
      throw new Fault('REGISTRY_DENIED', `${endpoint.url} wants credentials for ${repository}`, {
        remedy: 'put them into the auth file',
      })
    return await send()
  }

  async #accept(response: IncomingMessage, url: string): Promise<IncomingMessage> {
    const status = response.statusCode ?? 0
    if (status === 200 || status === 206 || status === 416) return response
    const said = await errorText(response)
    const message = `${url} answers ${status}${said === '' ? '' : ` (${said})`}`
    if (status === 401 || status === 403) throw new Fault('REGISTRY_DENIED', message)
    throw new Fault(status === 404 ? 'IMAGE_NOT_FOUND' : 'IMAGE_DOWNLOAD_FAILED', message)
  }
}

/** `Retry-After` in seconds, as far as we are willing to wait. */
function retryAfterMs(response: IncomingMessage): number | undefined {
  const seconds = Number(response.headers['retry-after'])
  return seconds > 0 ? Math.min(seconds * 1000, pauseMsMax) : undefined
}

/** What the registry says itself (distribution-spec, "Error codes"), in one short line. */
async function errorText(response: IncomingMessage): Promise<string> {
  const body = await readBody(response, 64 << 10, 'an error').catch(() => Buffer.alloc(0))
  try {
    const { errors } = JSON.parse(body.toString('utf8')) as { errors: { code?: string; message?: string }[] }
    const text = errors.map(({ code = '', message = '' }) => `${code} ${message}`.trim()).join(', ')
    return text.replace(/[\p{Cc}]/gu, ' ').slice(0, 300)
  } catch {
    return ''
  }
}
