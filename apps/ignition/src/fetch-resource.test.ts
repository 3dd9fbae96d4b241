import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import type { IgnitionResource } from '@kiln/schemas'
import { expect, test } from 'vitest'
import {
  defaultFetchSettings,
  type Fetcher,
  type FetchSettings,
  fetchResource,
  shown,
} from './fetch-resource.ts'
import type { HttpCall } from './http-request.ts'
import { type Answer, answering, hurryingClock } from './simulated-run.ts'
import type { TftpCall } from './tftp-request.ts'

async function fetchFrom(
  resource: IgnitionResource,
  answers: Record<string, Answer | Answer[]> = {},
  settings: Partial<FetchSettings> = {},
) {
  const calls: HttpCall[] = []
  const clock = hurryingClock()
  const fetcher = { http: answering(answers, calls), clock, network: true }
  const outcome = await fetchResource(resource, fetcher, { ...defaultFetchSettings, ...settings }).then(
    (bytes) => bytes.toString(),
    (error: { code?: string }) => error.code,
  )
  return { outcome, calls, elapsedMs: clock.now() }
}

const source = 'http://host/file'
const sha256 = (text: string): string => `sha256-${createHash('sha256').update(text).digest('hex')}`

test('server errors and broken connections are retried with growing pauses', async () => {
  const answers = {
    '/file': [{ status: 503 }, new Error('reset'), { status: 500 }, { status: 200, body: 'x' }],
  }
  const { outcome, calls, elapsedMs } = await fetchFrom({ source }, answers)
  expect(outcome).toBe('x')
  expect(calls).toHaveLength(4)
  expect(elapsedMs).toBe(200 + 400 + 800)
})

test('pauses stop growing at five seconds', async () => {
  const answers = { '/file': [...Array<Answer>(8).fill({ status: 500 }), { status: 200, body: 'x' }] }
  expect((await fetchFrom({ source }, answers)).elapsedMs).toBe(200 + 400 + 800 + 1600 + 3200 + 5000 * 3)
})

test('the total timeout ends the retries', async () => {
  const { outcome, elapsedMs } = await fetchFrom(
    { source },
    { '/file': { status: 500 } },
    { totalTimeoutMs: 3000 },
  )
  expect(outcome).toBe('FETCH_TIMED_OUT')
  expect(elapsedMs).toBe(3000)
})

test('other answers end it at once', async () => {
  expect(await fetchFrom({ source })).toMatchObject({ outcome: 'RESOURCE_NOT_FOUND', elapsedMs: 0 })
  expect(await fetchFrom({ source }, { '/file': { status: 403 } })).toMatchObject({
    outcome: 'RESOURCE_REFUSED',
  })
  expect(await fetchFrom({ source }, { '/file': { status: 204 } })).toMatchObject({ outcome: '' })
})

test('the hash is that of the decompressed bytes', async () => {
  const answers = { '/file': { status: 200, body: gzipSync('text') } }
  const good = { source, compression: 'gzip', verification: { hash: sha256('text') } }
  expect((await fetchFrom(good, answers)).outcome).toBe('text')
  const bad = { ...good, verification: { hash: sha256('other') } }
  expect((await fetchFrom(bad, answers)).outcome).toBe('RESOURCE_HASH_MISMATCH')
  const plain = { '/file': { status: 200, body: 'not gzip' } }
  expect((await fetchFrom({ source, compression: 'gzip' }, plain)).outcome).toBe('RESOURCE_INVALID')
})

test('a small archive that unpacks to very much is refused as too large', async () => {
  const piece = gzipSync(Buffer.alloc(8 * 1024 * 1024))
  const body = Buffer.concat(Array.from({ length: 33 }, () => piece))
  const resource = { source, compression: 'gzip' }
  expect((await fetchFrom(resource, { '/file': { status: 200, body } })).outcome).toBe('RESOURCE_TOO_LARGE')
})

test('headers of the config override ours and do not follow a redirect', async () => {
  const answers = {
    '/file': { status: 302, headers: { location: 'http://other/moved' } },
    '/moved': { status: 200, body: 'x' },
  }
  const httpHeaders = [
    { name: 'X-Auth', value: 'secret' },
    { name: 'user-agent', value: 'Mine' },
  ]
  const { outcome, calls } = await fetchFrom({ source, httpHeaders }, answers)
  expect(outcome).toBe('x')
  expect(calls[0]?.headers).toEqual({ 'X-Auth': 'secret', 'user-agent': 'Mine' })
  expect(calls[1]).toMatchObject({ url: 'http://other/moved' })
  expect(calls[1]?.headers).not.toHaveProperty('X-Auth')
})

test('a circle of redirects ends', async () => {
  const answers = { '/file': { status: 302, headers: { location: '/file' } } }
  expect((await fetchFrom({ source }, answers)).outcome).toBe('RESOURCE_REFUSED')
})

test('data URLs need no network, other schemes are refused', async () => {
  expect((await fetchFrom({ source: 'data:,a%20b' })).outcome).toBe('a b')
  expect((await fetchFrom({ source: 'data:text/plain;base64,aGk=' })).outcome).toBe('hi')
  expect((await fetchFrom({ source: 'ftp://host/key' })).outcome).toBe('SCHEME_UNSUPPORTED')
})

test('messages show no credentials and no query', () => {
  expect(shown('https://user:pw@host:1/path?token=x')).toBe('https://host:1/path')
  expect(shown('data:,secret')).toBe('data URL')
})

test('a URL goes through the proxy that the settings name for it', async () => {
  const proxy = { httpProxy: 'http://proxy', noProxy: ['other'] }
  const { calls } = await fetchFrom({ source }, { '/file': { status: 200 } }, { proxy })
  expect(calls.map((call) => call.proxy)).toEqual(['http://proxy'])
  const direct = await fetchFrom({ source: 'http://other/file' }, { '/file': { status: 200 } }, { proxy })
  expect(direct.calls.map((call) => call.proxy)).toEqual([undefined])
})

test('tftp is read from its port and path, and needs the network', async () => {
  const asked: unknown[] = []
  const fetcher = {
    http: answering({}),
    tftp: async ({ host, port, path }: TftpCall) => {
      asked.push([host, port, path])
      return Buffer.from('over tftp')
    },
    clock: hurryingClock(),
    network: true,
  }
  const resource = { source: 'tftp://host/a%20b' }
  expect((await fetchResource(resource, fetcher, defaultFetchSettings)).toString()).toBe('over tftp')
  await fetchResource({ source: 'tftp://[::1]:6969/c' }, fetcher, defaultFetchSettings)
  expect(asked).toEqual([
    ['host', 69, '/a b'],
    ['::1', 6969, '/c'],
  ])
  const offline = fetchResource(resource, { ...fetcher, network: false }, defaultFetchSettings)
  await expect(offline).rejects.toMatchObject({ code: 'NEEDS_NETWORK' })
})

test('an object is asked for again in the region that the answer names', async () => {
  const answers = {
    '/key': [
      { status: 301, headers: { 'x-amz-bucket-region': 'eu-west-1' } },
      { status: 200, body: 'object' },
    ],
  }
  const { outcome, calls } = await fetchFrom({ source: 's3://bucket/key' }, answers)
  expect(outcome).toBe('object')
  expect(calls.map(({ url }) => url)).toEqual([
    'https://bucket.s3.us-east-1.amazonaws.com/key',
    'https://bucket.s3.eu-west-1.amazonaws.com/key',
  ])
  expect((await fetchFrom({ source: 's3://bucket/none' })).outcome).toBe('RESOURCE_NOT_FOUND')
})

const blob = 'https://account.blob.core.windows.net/container/blob'

/** Fetches with the token that an Azure machine has, if it has one. */
async function fetchBlob(
  resource: IgnitionResource,
  answer: (call: HttpCall) => Answer,
  azureToken?: string,
) {
  const calls: HttpCall[] = []
  const asked: string[] = []
  const fetcher: Fetcher = {
    http: async (call) => {
      const { host, pathname } = new URL(call.url)
      return answering({ [pathname]: answer({ ...call, url: `${host}${pathname}` }) }, calls)(call)
    },
    clock: hurryingClock(),
    network: true,
    identity: async (cloud) => {
      asked.push(cloud)
      return { azureToken }
    },
  }
  const outcome = await fetchResource(resource, fetcher, defaultFetchSettings).then(
    (bytes) => bytes.toString(),
    (error: Error) => error,
  )
  const tokens = calls.map(({ headers }) => headers?.['Authorization'])
  return { outcome, tokens, asked, calls }
}

test('a private blob is read with the managed identity, a public one without', async () => {
  const secured = (call: HttpCall): Answer =>
    call.headers?.['Authorization'] === 'Bearer t' ? { status: 200, body: 'private' } : { status: 404 }
  const own = await fetchBlob({ source: blob }, secured, 't')
  expect([own.outcome, own.tokens]).toEqual(['private', ['Bearer t']])
  expect(own.calls[0]?.headers).toMatchObject({ 'x-ms-version': '2023-11-03' })
  const anybody = await fetchBlob({ source: blob }, () => ({ status: 200, body: 'public' }))
  expect([anybody.outcome, anybody.tokens]).toEqual(['public', [undefined]])
  const elsewhere = await fetchBlob({ source: 'https://host/container/blob' }, secured, 't')
  expect([elsewhere.tokens, elsewhere.asked]).toEqual([[undefined], []])
})

test('an identity that may not read a blob is tried without, and the remedy is said when that fails too', async () => {
  const publicOnly = (call: HttpCall): Answer =>
    call.headers?.['Authorization'] ? { status: 403 } : { status: 200, body: 'public' }
  const anybody = await fetchBlob({ source: blob }, publicOnly, 't')
  expect([anybody.outcome, anybody.tokens]).toEqual(['public', ['Bearer t', undefined]])
  const nobody = await fetchBlob({ source: blob }, () => ({ status: 403 }), 't')
  expect(nobody.outcome).toMatchObject({
    code: 'RESOURCE_REFUSED',
    remedy: expect.stringContaining('Reader'),
  })
})

test("the config's own Authorization goes first, and no token follows a redirect", async () => {
  const httpHeaders = [{ name: 'authorization', value: 'mine' }]
  const mine = await fetchBlob({ source: blob, httpHeaders }, () => ({ status: 200, body: 'x' }), 't')
  expect(mine.calls[0]?.headers).toMatchObject({ authorization: 'mine' })
  expect(mine.tokens).toEqual([undefined])
  const away = (call: HttpCall): Answer =>
    call.url.startsWith('other')
      ? { status: 200, body: 'x' }
      : { status: 302, headers: { location: 'https://other/x' } }
  expect((await fetchBlob({ source: blob }, away, 't')).tokens).toEqual(['Bearer t', undefined])
  const calls: HttpCall[] = []
  const moved = {
    '/bucket/key': { status: 302, headers: { location: 'https://other/y' } },
    '/y': { status: 200 },
  }
  const identity = async () => ({ gcpToken: 'g' })
  const fetcher = { http: answering(moved, calls), clock: hurryingClock(), network: true, identity }
  await fetchResource({ source: 'gs://bucket/key' }, fetcher, defaultFetchSettings)
  expect(calls.map(({ headers }) => headers?.['Authorization'])).toEqual(['Bearer g', undefined])
})
