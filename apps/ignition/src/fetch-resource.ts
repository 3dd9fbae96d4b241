import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { decodeDataUrl, type IgnitionConfig, type IgnitionResource } from '@kiln/schemas'
import { type Clock, Fault, version } from '@kiln/service'
import type { Http, HttpReply } from './http-request.ts'
import type { CloudIdentity, ObjectCloud } from './object-store.ts'
import { type ProxySettings, proxyFor } from './proxy-rules.ts'
import type { Tftp } from './tftp-request.ts'

/** Settings of a config that govern its own fetches. */
export type FetchSettings = {
  headersTimeoutMs: number
  /** 0 means no limit. */
  totalTimeoutMs: number
  /** PEM bundles trusted beside the system's. */
  authorities: string[]
  proxy?: ProxySettings | undefined
}

export type Fetcher = {
  http: Http
  /** Reads over TFTP; the real client unless a test answers. */
  tftp?: Tftp
  clock: Clock
  /** False in fetch-offline: anything beyond data URLs and files is `NEEDS_NETWORK`. */
  network: boolean
  /** What this instance may show the object store of a cloud; nothing to that of another one. */
  identity?: (cloud: ObjectCloud) => Promise<CloudIdentity>
  /** Told of every config that was read. */
  configRead?: (what: { source: string; referenced: boolean }) => void | Promise<void>
  retrying?: (what: { url: string; attempt: number; problem: string }) => void
}

/** Largest resource and largest decompressed resource that is taken. */
export const resourceBytesMax = 256 * 1024 * 1024
const redirectsMax = 10
const backoffFirstMs = 200
const backoffMaxMs = 5_000
const defaultHeadersTimeoutMs = 10_000

export const defaultFetchSettings: FetchSettings = {
  headersTimeoutMs: defaultHeadersTimeoutMs,
  totalTimeoutMs: 0,
  authorities: [],
}

/** The timeouts and proxies a config asks for, over those before it. */
export function settingsOf(config: IgnitionConfig, before: FetchSettings): FetchSettings {
  const { httpResponseHeaders, httpTotal } = config.ignition.timeouts ?? {}
  return {
    ...before,
    headersTimeoutMs:
      httpResponseHeaders === undefined ? before.headersTimeoutMs : httpResponseHeaders * 1000,
    totalTimeoutMs: httpTotal === undefined ? before.totalTimeoutMs : httpTotal * 1000,
    proxy: config.ignition.proxy ?? before.proxy,
  }
}

/** Headers of a request for a config. */
export const configHeaders = {
  Accept: 'application/vnd.coreos.ignition+json;version=3.6.0, */*;q=0.1',
  'Accept-Encoding': 'identity',
}

/**
 * Bytes of a resource: fetched, decompressed, verified (Ignition, "resource"). Transport errors and answers from 500
 * are retried until the total timeout; any other status ends it.
 */
export async function fetchResource(
  resource: IgnitionResource,
  fetcher: Fetcher,
  settings: FetchSettings,
  extraHeaders: Record<string, string> = {},
): Promise<Buffer> {
  const source = resource.source
  if (!source) return Buffer.alloc(0)
  const raw = await fetchRaw(resource, source, fetcher, settings, extraHeaders)
  const bytes = resource.compression === 'gzip' ? await gunzipped(raw, shown(source)) : raw
  verifyHash(bytes, resource.verification?.hash, shown(source))
  return bytes
}

async function fetchRaw(
  resource: IgnitionResource,
  source: string,
  fetcher: Fetcher,
  settings: FetchSettings,
  extraHeaders: Record<string, string>,
): Promise<Buffer> {
  const scheme = source.slice(0, source.indexOf(':')).toLowerCase()
  switch (scheme) {
    case 'data': {
      const bytes = decodeDataUrl(source)
      if (!bytes) throw new Fault('RESOURCE_INVALID', 'a data URL cannot be decoded')
      return Buffer.from(bytes)
    }
    case 'file':
      return readFile(new URL(source))
    case 'http':
    case 'https': {
      if (!fetcher.network) throw new Fault('NEEDS_NETWORK', `${shown(source)} needs the network`)
      const headers: Record<string, string> = { 'User-Agent': `Ignition/${version}`, ...extraHeaders }
      const own = headersOf(resource.httpHeaders ?? [])
      const get = (shownToo: Record<string, string> = {}): Promise<Buffer> =>
        getWithRetries(source, { headers, own: overriding(shownToo, own) }, fetcher, settings)
      return withIdentity(source, get, fetcher)
    }
    case 'tftp':
      if (!fetcher.network) throw new Fault('NEEDS_NETWORK', `${shown(source)} needs the network`)
      return fetchTftp(source, fetcher, settings)
    case 's3':
    case 'arn':
    case 'gs':
      if (!fetcher.network) throw new Fault('NEEDS_NETWORK', `${shown(source)} needs the network`)
      return fetchObject(source, fetcher, settings)
    default:
      throw new Fault('SCHEME_UNSUPPORTED', `sources of scheme ${scheme} are not supported`, {
        remedy: 'serve it over http or https',
      })
  }
}

/** Bytes at an http URL that no config names, such as a platform's metadata; undefined when they are not there. */
export async function fetchUrl(
  url: string,
  asked: { headers?: Record<string, string>; method?: 'GET' | 'PUT' },
  fetcher: Fetcher,
  settings: FetchSettings,
): Promise<Buffer | undefined> {
  if (!fetcher.network) throw new Fault('NEEDS_NETWORK', `${shown(url)} needs the network`)
  const { method = 'GET' } = asked
  const headers = { 'User-Agent': `Ignition/${version}`, ...asked.headers }
  try {
    return await getWithRetries(url, { method, headers, own: {} }, fetcher, settings)
  } catch (error) {
    if (error instanceof Fault && error.code === 'RESOURCE_NOT_FOUND') return undefined
    throw error
  }
}

/**
 * A blob of Azure is asked for with the machine's managed identity, if there is one. One that may not read it is no worse
 * than none: anybody may read a public blob.
 */
async function withIdentity(
  source: string,
  get: (headers?: Record<string, string>) => Promise<Buffer>,
  fetcher: Fetcher,
): Promise<Buffer> {
  if (!fetcher.identity || !/^https:\/\/[^/]*\.blob\./i.test(source)) return get()
  const { cloudOf, objectRequest } = await import('./object-store.ts')
  const cloud = cloudOf(source)
  const identity = cloud && (await fetcher.identity(cloud))
  if (!identity?.azureToken) return get()
  try {
    return await get(objectRequest(source, identity, new Date()).headers)
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== 'RESOURCE_REFUSED') throw error
    return get().catch((cause: unknown) => {
      throw new Fault('RESOURCE_REFUSED', `${error.message}, and without the machine's identity too`, {
        cause,
        remedy: "give the machine's managed identity the role Storage Blob Data Reader",
      })
    })
  }
}

/** An object of a cloud's store; a bucket that turns out to be in another region is asked again there. */
async function fetchObject(source: string, fetcher: Fetcher, settings: FetchSettings): Promise<Buffer> {
  const { cloudOf, objectRequest, regionOfAnswer } = await import('./object-store.ts')
  const cloud = cloudOf(source)
  const identity = (cloud && (await fetcher.identity?.(cloud))) ?? {}
  let region: string | undefined
  const get = (): Promise<Buffer> => {
    const { url, headers } = objectRequest(source, identity, new Date(), region)
    const seen = (reply: HttpReply): void => {
      region ??= regionOfAnswer(reply.headers)
    }
    // What shows who we are is for the store alone, not for wherever it points to.
    const sent = { headers: { 'User-Agent': `Ignition/${version}` }, own: headers, seen }
    return getWithRetries(url, sent, fetcher, settings)
  }
  try {
    return await get()
  } catch (error) {
    if (region === undefined) throw error
    return get()
  }
}

const tftpPort = 69

async function fetchTftp(source: string, fetcher: Fetcher, settings: FetchSettings): Promise<Buffer> {
  const url = new URL(source)
  const read = fetcher.tftp ?? (await import('./tftp-request.ts')).readTftp
  return read({
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port) || tftpPort,
    path: decodeURIComponent(url.pathname),
    bytesMax: resourceBytesMax,
    ...(settings.totalTimeoutMs > 0 ? { signal: AbortSignal.timeout(settings.totalTimeoutMs) } : {}),
  })
}

/** The headers of a resource as a request sends them. One without a value is there to remove a parent's in a merge. */
export function headersOf(headers: NonNullable<IgnitionResource['httpHeaders']>): Record<string, string> {
  const sent: Record<string, string> = {}
  for (const { name, value } of headers) {
    if (name === '') throw new Fault('RESOURCE_INVALID', 'an HTTP header has no name')
    if (value === undefined) throw new Fault('RESOURCE_INVALID', `the HTTP header ${name} has no value`)
    sent[name] = value
  }
  return sent
}

async function getWithRetries(
  source: string,
  headers: SentHeaders,
  fetcher: Fetcher,
  settings: FetchSettings,
): Promise<Buffer> {
  const started = fetcher.clock.now()
  const left = (): number =>
    settings.totalTimeoutMs === 0
      ? Number.POSITIVE_INFINITY
      : settings.totalTimeoutMs - (fetcher.clock.now() - started)
  let backoffMs = backoffFirstMs
  let problem: unknown
  for (let attempt = 1; left() > 0; attempt++) {
    const outcome = await getOnce(source, headers, fetcher, settings, left())
    if (outcome.kind === 'bytes') return outcome.bytes
    problem = outcome.problem
    fetcher.retrying?.({ url: shown(source), attempt, problem: (outcome.problem as Error).message })
    const pause = Math.min(backoffMs, left())
    if (pause > 0) await new Promise<void>((resolve) => fetcher.clock.after(pause, resolve))
    backoffMs = Math.min(backoffMs * 2, backoffMaxMs)
  }
  throw new Fault(
    'FETCH_TIMED_OUT',
    `${shown(source)} did not arrive in ${settings.totalTimeoutMs / 1000} s`,
    {
      cause: problem,
    },
  )
}

/** Ours and the config's headers of a request; `seen` is told of every answer. */
type SentHeaders = {
  method?: 'GET' | 'PUT'
  headers: Record<string, string>
  own: Record<string, string>
  seen?: (reply: HttpReply) => void
}

type Attempt = { kind: 'bytes'; bytes: Buffer } | { kind: 'again'; problem: unknown }

async function getOnce(
  source: string,
  { method, headers, own, seen }: SentHeaders,
  fetcher: Fetcher,
  settings: FetchSettings,
  leftMs: number,
): Promise<Attempt> {
  let url = source
  for (let redirects = 0; redirects <= redirectsMax; redirects++) {
    const limit = new AbortController()
    const cancel = Number.isFinite(leftMs) ? fetcher.clock.after(leftMs, () => limit.abort()) : undefined
    try {
      const reply = await fetcher.http({
        url,
        ...(method ? { method } : {}),
        // Headers of the config are for the host it names, not for wherever that one points to.
        headers: redirects === 0 ? overriding(headers, own) : headers,
        headersTimeoutMs: settings.headersTimeoutMs,
        bodyBytesMax: resourceBytesMax,
        signal: limit.signal,
        proxy: proxyFor(url, settings.proxy),
        ...(settings.authorities.length > 0 ? { tls: { ca: await trusted(settings.authorities) } } : {}),
      })
      seen?.(reply)
      if (reply.status >= 500) {
        return { kind: 'again', problem: new Error(`the server answered ${reply.status}`) }
      }
      const location = reply.headers.location
      if (reply.status >= 300 && reply.status < 400 && location !== undefined) {
        url = new URL(location, url).href
        continue
      }
      if (reply.status === 200 || reply.status === 204) return { kind: 'bytes', bytes: reply.body }
      const text = reply.status === 404 ? 'is not there (404)' : `was answered with status ${reply.status}`
      throw new Fault(
        reply.status === 404 ? 'RESOURCE_NOT_FOUND' : 'RESOURCE_REFUSED',
        `${shown(source)} ${text}`,
      )
    } catch (error) {
      if (error instanceof Fault) throw error
      return { kind: 'again', problem: error }
    } finally {
      cancel?.()
    }
  }
  throw new Fault('RESOURCE_REFUSED', `${shown(source)} redirects more than ${redirectsMax} times`)
}

/** Header names do not care for case: the config's replace ours. */
function overriding(base: Record<string, string>, own: Record<string, string>): Record<string, string> {
  const names = new Set(Object.keys(own).map((name) => name.toLowerCase()))
  const kept = Object.entries(base).filter(([name]) => !names.has(name.toLowerCase()))
  return { ...Object.fromEntries(kept), ...own }
}

async function trusted(authorities: string[]): Promise<string[]> {
  const { rootCertificates } = await import('node:tls')
  return [...rootCertificates, ...authorities]
}

async function gunzipped(bytes: Buffer, what: string): Promise<Buffer> {
  const { gunzipSync } = await import('node:zlib')
  try {
    return gunzipSync(bytes, { maxOutputLength: resourceBytesMax })
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new Fault('RESOURCE_TOO_LARGE', `${what} unpacks to more than ${resourceBytesMax} bytes`)
    }
    throw new Fault('RESOURCE_INVALID', `${what} is not gzip as the config says`, { cause })
  }
}

function verifyHash(bytes: Buffer, hash: string | undefined, what: string): void {
  if (!hash) return
  const dash = hash.indexOf('-')
  const sum = createHash(hash.slice(0, dash)).update(bytes).digest('hex')
  if (sum !== hash.slice(dash + 1).toLowerCase()) {
    throw new Fault(
      'RESOURCE_HASH_MISMATCH',
      `${what} has ${hash.slice(0, dash)} ${sum}, not ${hash.slice(dash + 1)}`,
    )
  }
}

/** A source for messages: no data, no credentials, no query (it may hold a token). */
export function shown(source: string): string {
  if (/^data:/i.test(source)) return 'data URL'
  if (!URL.canParse(source)) return source
  const url = new URL(source)
  return `${url.protocol}//${url.host}${url.pathname}`
}
