import { readdir, readFile } from 'node:fs/promises'
import { request } from 'node:https'
import { join } from 'node:path'
import { verifyManifest } from '@kiln/pki/release'
import { ChannelAnswer, type MachineFacts, type ReleaseManifest, type StageReport } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { Pki } from './store.ts'

const manifestBytesMax = 256 * 1024
const timeoutMs = 10_000
/** A download may be slow, but not silent for longer than this. */
const silenceMs = 30_000

/** A manifest whose signature holds, with the bytes it was checked on and where it came from. */
export type SignedRelease = { manifest: ReleaseManifest; bytes: Uint8Array; baseUrl: string }

/** The release a group should run; undefined when nothing is published. */
export async function fetchChannel(facts: MachineFacts): Promise<ChannelAnswer | undefined> {
  const url = new URL(`/v1/channels/${facts.group}`, facts.bootUrl)
  const response = await get(url)
  if (response.status === 404) return undefined
  const result = ChannelAnswer.safeParse(
    parseJson(Buffer.from(await readBody(response, url)).toString('utf8')),
  )
  if (!result.success) throw new Fault('BOOT_SERVER_ANSWER', `${url} did not answer with a channel`)
  return result.data
}

/**
 * Whether the boot server itself, shown by its certificate, asks for an older release. The channel comes over plain HTTP:
 * without this, anybody in between could send machines back to an old release that is still signed and in date.
 */
export async function confirmDowngrade(facts: MachineFacts, pki: Pki, version: string): Promise<boolean> {
  const url = new URL(`/v1/channels/${facts.group}`, facts.bootTlsUrl)
  const { status, text } = await callSecurely(url, pki, 'GET')
  if (status !== 200) throw new Fault('BOOT_SERVER_ANSWER', `${url} was answered with ${status}`)
  const result = ChannelAnswer.safeParse(parseJson(text))
  if (!result.success) throw new Fault('BOOT_SERVER_ANSWER', `${url} did not answer with a channel`)
  return result.data.version === version && result.data.allowDowngrade === true
}

/** Fetches a release's manifest and refuses it unless one of the machine's release keys signed it and it is in date. */
export async function fetchRelease(
  facts: MachineFacts,
  channel: ChannelAnswer,
  options: { releaseKeysDir: string; nowMs: number },
): Promise<SignedRelease> {
  const manifestUrl = new URL(channel.manifestUrl, facts.bootUrl)
  const bytes = await readBody(await get(manifestUrl), manifestUrl)
  const signatureUrl = new URL(`${manifestUrl}.sig`)
  const signature = Buffer.from(await readBody(await get(signatureUrl), signatureUrl)).toString('utf8')
  const manifest = verifyManifest(
    bytes,
    signature,
    await readReleaseKeys(options.releaseKeysDir),
    new Date(options.nowMs),
  )
  if (manifest.version !== channel.version)
    throw new Fault(
      'RELEASE_MISMATCH',
      `the channel offers ${channel.version}, its manifest says ${manifest.version}`,
    )
  return { manifest, bytes, baseUrl: new URL('.', manifestUrl).toString() }
}

async function readReleaseKeys(folder: string): Promise<string[]> {
  const files = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith('.pub')).sort()
  return Promise.all(files.map((name) => readFile(join(folder, name), 'utf8')))
}

/** Opens a part of a release from a byte offset; a server without ranges makes it start at 0. */
export async function openPart(
  release: SignedRelease,
  name: string,
  offset: number,
): Promise<{ offset: number; body: AsyncIterable<Uint8Array> }> {
  const url = new URL(name, release.baseUrl)
  const stop = new AbortController()
  let timer = setTimeout(() => stop.abort(), silenceMs)
  const response = await fetch(url, {
    headers: offset > 0 ? { range: `bytes=${offset}-` } : {},
    signal: stop.signal,
  }).catch((cause: unknown) => {
    clearTimeout(timer)
    throw new Fault('RELEASE_UNREACHABLE', `fetching ${url}`, { cause })
  })
  const ranged = offset > 0 && response.status === 206
  if (!response.ok || !response.body) {
    clearTimeout(timer)
    stop.abort()
    throw new Fault('RELEASE_UNREACHABLE', `fetching ${url} was answered with ${response.status}`)
  }
  const source = response.body
  async function* body(): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of source) {
        clearTimeout(timer)
        yield chunk
        timer = setTimeout(() => stop.abort(), silenceMs)
      }
    } catch (cause) {
      throw new Fault('RELEASE_UNREACHABLE', `reading ${url}`, { cause })
    } finally {
      clearTimeout(timer)
      stop.abort()
    }
  }
  return { offset: ranged ? offset : 0, body: body() }
}

/** Tells kiln-boot where this machine is; it may be away, which changes nothing here. */
export async function sendReport(facts: MachineFacts, report: StageReport): Promise<void> {
  const response = await fetch(new URL(`/v1/machines/${facts.id}/report`, facts.bootUrl), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(report),
    signal: AbortSignal.timeout(timeoutMs),
  }).catch((cause: unknown) => {
    throw new Fault('BOOT_SERVER_UNREACHABLE', `reporting to ${facts.bootUrl}`, { cause })
  })
  await response.body?.cancel()
  if (!response.ok) throw new Fault('BOOT_SERVER_ANSWER', `the report was answered with ${response.status}`)
}

/** Halts the group's rollout at the boot server, with this machine's certificate. */
export async function haltChannel(facts: MachineFacts, pki: Pki, reason: string): Promise<void> {
  const url = new URL(`/v1/channels/${facts.group}/halt`, facts.bootTlsUrl)
  const body = JSON.stringify({ reason: reason.slice(0, 2000), machine: facts.id })
  const { status } = await callSecurely(url, pki, 'POST', body)
  if (status >= 300) throw new Fault('BOOT_SERVER_ANSWER', `halting the rollout was answered with ${status}`)
}

/** One request to the TLS port, as this machine. */
async function callSecurely(
  url: URL,
  pki: Pki,
  method: 'GET' | 'POST',
  body?: string,
): Promise<{ status: number; text: string }> {
  return await new Promise((resolve, reject) => {
    const fail = (cause: unknown): void =>
      reject(new Fault('BOOT_SERVER_UNREACHABLE', `asking ${url}`, { cause }))
    const options = { method, ...pki, timeout: timeoutMs, headers: { 'content-type': 'application/json' } }
    const call = request(url, options, (response) => {
      const chunks: Buffer[] = []
      let length = 0
      response.on('data', (chunk: Buffer) => {
        length += chunk.length
        if (length > manifestBytesMax) call.destroy(new Error('the answer is too long'))
        else chunks.push(chunk)
      })
      response.on('error', fail)
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
      )
    })
    call.on('timeout', () => call.destroy(new Error('no answer in time')))
    call.on('error', fail)
    call.end(body)
  })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

async function get(url: URL): Promise<Response> {
  return await fetch(url, { signal: AbortSignal.timeout(timeoutMs) }).catch((cause: unknown) => {
    throw new Fault('BOOT_SERVER_UNREACHABLE', `asking ${url}`, { cause })
  })
}

async function readBody(response: Response, url: URL): Promise<Uint8Array> {
  if (!response.ok) throw new Fault('BOOT_SERVER_ANSWER', `${url} was answered with ${response.status}`)
  const length = Number(response.headers.get('content-length') ?? 0)
  if (length > manifestBytesMax)
    throw new Fault('BOOT_SERVER_ANSWER', `${url} has ${length} bytes, ${manifestBytesMax} at most`)
  const bytes = new Uint8Array(await response.arrayBuffer())
  if (bytes.length > manifestBytesMax)
    throw new Fault('BOOT_SERVER_ANSWER', `${url} is longer than ${manifestBytesMax} bytes`)
  return bytes
}
