import { readdir, readFile } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { join } from 'node:path'
import type { MachineTls } from '@kiln/pki/machine'
import { verifyManifest } from '@kiln/pki/release'
import {
  ChannelAnswer,
  EnrolmentReply,
  type MachineFacts,
  MachineRecord,
  type ReleaseManifest,
  type StageReport,
} from '@kiln/schemas'
import { Fault } from '@kiln/service'
import * as z from 'zod'

const answerBytesMax = 256 * 1024
const timeoutMs = 10_000
/** Longer than the time between two looks, so that they share a connection: a handshake costs more than all that is asked. */
const agent = new Agent({ keepAlive: true, maxSockets: 4, timeout: 60_000 })
/** A download may be slow, but not silent for longer than this. */
const silenceMs = 30_000

/**
 * kiln-boot as this machine reaches it: over TLS, each side shown by a certificate of the cluster's CA. The machine's own
 * is asked for at each request, since it is renewed now and then.
 */
export type BootLink = { facts: MachineFacts; tls(): MachineTls }

/** A manifest whose signature holds, with the bytes it was checked on and where its parts are. */
export type SignedRelease = { manifest: ReleaseManifest; bytes: Uint8Array; baseUrl: string }

/** The release a group should run; undefined when nothing is published. */
export async function fetchChannel(link: BootLink): Promise<ChannelAnswer | undefined> {
  const url = new URL(`/v1/channels/${link.facts.group}`, link.facts.bootTlsUrl)
  const answer = await call(link, url, 'GET')
  if (answer.status === 404) return undefined
  requireOk(url, answer)
  const result = ChannelAnswer.safeParse(parseJson(answer.body))
  if (!result.success) throw new Fault('BOOT_SERVER_ANSWER', `${url} did not answer with a channel`)
  return result.data
}

/**
 * Fetches a release's manifest and refuses it unless one of the machine's release keys signed it and it is in date. Both come
 * from the boot server's TLS port, whatever host the channel names. The parts may come over plain HTTP: the signed manifest
 * has their sizes and hashes, so nobody in between can change them, and a cache may serve them.
 */
export async function fetchRelease(
  link: BootLink,
  channel: ChannelAnswer,
  options: { releaseKeysDir: string; nowMs: number },
): Promise<SignedRelease> {
  const { pathname } = new URL(channel.manifestUrl, link.facts.bootTlsUrl)
  const read = async (path: string): Promise<Buffer> => {
    const url = new URL(path, link.facts.bootTlsUrl)
    const answer = await call(link, url, 'GET')
    requireOk(url, answer)
    return answer.body
  }
  const bytes = await read(pathname)
  const signature = (await read(`${pathname}.sig`)).toString('utf8')
  const keys = await readReleaseKeys(options.releaseKeysDir)
  const manifest = verifyManifest(bytes, signature, keys, new Date(options.nowMs))
  if (manifest.version !== channel.version)
    throw new Fault(
      'RELEASE_MISMATCH',
      `the channel offers ${channel.version}, its manifest says ${manifest.version}`,
    )
  const baseUrl = new URL('.', new URL(pathname, link.facts.bootUrl)).toString()
  return { manifest, bytes, baseUrl }
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

/** Whether an operator set this machine to be installed again at its next boot. */
export async function isReprovisioned(link: BootLink): Promise<boolean> {
  const url = new URL(`/v1/machines/${link.facts.id}`, link.facts.bootTlsUrl)
  const answer = await call(link, url, 'GET')
  requireOk(url, answer)
  const result = MachineRecord.safeParse(parseJson(answer.body))
  if (!result.success) throw new Fault('BOOT_SERVER_ANSWER', `${url} did not answer with a machine`)
  return result.data.reinstall === true
}

/** Tells kiln-boot where this machine is; it may be away, which changes nothing here. */
export async function sendReport(link: BootLink, report: StageReport): Promise<void> {
  const url = new URL(`/v1/machines/${link.facts.id}/report`, link.facts.bootTlsUrl)
  requireOk(url, await call(link, url, 'POST', report))
}

/**
 * Halts the rollout of a version at the boot server. `outdated`: another release is published by now, so that there
 * was nothing to halt.
 */
export async function haltChannel(
  link: BootLink,
  halt: { version: string; reason: string },
): Promise<'halted' | 'outdated'> {
  const url = new URL(`/v1/channels/${link.facts.group}/halt`, link.facts.bootTlsUrl)
  const answer = await call(link, url, 'POST', halt)
  if (answer.status === 409) return 'outdated'
  requireOk(url, answer)
  return 'halted'
}

/** Asks for this machine's certificate anew. */
export async function renewCertificate(link: BootLink, csr: string): Promise<string> {
  const url = new URL('/v1/renew', link.facts.bootTlsUrl)
  const answer = await call(link, url, 'POST', { csr })
  requireOk(url, answer)
  const result = EnrolmentReply.safeParse(parseJson(answer.body))
  if (!result.success) throw new Fault('BOOT_SERVER_ANSWER', `${url} did not answer with a certificate`)
  return result.data.certificate
}

type Answer = { status: number; body: Buffer }

/** One request to the TLS port, as this machine. */
async function call(link: BootLink, url: URL, method: 'GET' | 'POST', body?: object): Promise<Answer> {
  const tls = link.tls()
  return await new Promise((resolve, reject) => {
    const fail = (cause: unknown): void =>
      reject(new Fault('BOOT_SERVER_UNREACHABLE', `asking ${url}`, { cause }))
    const options = {
      method,
      agent,
      ...tls,
      timeout: timeoutMs,
      headers: { 'content-type': 'application/json' },
    }
    const sent = request(url, options, (response) => {
      const chunks: Buffer[] = []
      let length = 0
      response.on('data', (chunk: Buffer) => {
        length += chunk.length
        if (length > answerBytesMax) sent.destroy(new Error(`more than ${answerBytesMax} bytes`))
        else chunks.push(chunk)
      })
      response.on('error', fail)
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }))
    })
    sent.on('timeout', () => sent.destroy(new Error('no answer in time')))
    sent.on('error', fail)
    sent.end(body && JSON.stringify(body))
  })
}

const Refusal = z.object({
  error: z.object({ code: z.string(), message: z.string(), remedy: z.string().optional() }),
})

/** An answer that is none; what the boot server says about it is for the operator. */
function requireOk(url: URL, { status, body }: Answer): void {
  if (status < 300) return
  const said = Refusal.safeParse(parseJson(body)).data?.error
  const words = said ? `: ${said.code}, ${said.message.slice(0, 500)}` : ''
  throw new Fault('BOOT_SERVER_ANSWER', `${url} was answered with ${status}${words}`, {
    ...(said?.remedy ? { remedy: said.remedy.slice(0, 500) } : {}),
  })
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return undefined
  }
}
