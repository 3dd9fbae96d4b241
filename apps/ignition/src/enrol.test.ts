import { X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { caHash, createCa, issueCertificate, type KeyPair, signCsr } from '@kiln/pki'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { enrol } from './enrol.ts'
import { sendHttp } from './http-request.ts'
import { simulatedRun } from './simulated-run.ts'
import { openTargetRoot } from './target-root.ts'

const now = new Date()
const token = 'a-token-of-sixteen-or-more'
let ca: KeyPair
let stranger: KeyPair
const open: (() => void)[] = []

beforeAll(async () => {
  ca = await createCa({ name: 'cluster', days: 2, now })
  stranger = await createCa({ name: 'stranger', days: 2, now })
})

afterEach(() => {
  for (const close of open.splice(0)) close()
})

type Asked = { machine: string; token: string; csr: string }
type Reply = (asked: Asked, count: number) => Promise<{ status: number; body: object | string }>

const sign: Reply = async ({ csr, machine }) => ({
  status: 200,
  body: {
    certificate: await signCsr(ca, csr, {
      commonName: machine,
      names: [],
      use: ['client', 'server'],
      days: 1,
      now,
    }),
    ca: ca.certificate,
  },
})

/** A boot server with a certificate of `authority`; keeps what it was asked. */
async function serve(authority: KeyPair, reply: Reply): Promise<{ url: string; asked: Asked[] }> {
  const own = await issueCertificate(authority, {
    commonName: 'boot',
    names: ['127.0.0.1'],
    use: ['server'],
    days: 1,
    now,
  })
  const asked: Asked[] = []
  const server = createServer(
    { key: own.key, cert: own.certificate + authority.certificate },
    async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      asked.push(JSON.parse(Buffer.concat(chunks).toString()) as Asked)
      const { status, body } = await reply(asked.at(-1)!, asked.length)
      response.writeHead(status).end(typeof body === 'string' ? body : JSON.stringify(body))
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  open.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}/v1/enrol`, asked }
}

function machine(url: string | undefined) {
  const { run, root, said } = simulatedRun({ http: sendHttp })
  mkdirSync(join(root, 'etc/kiln'), { recursive: true })
  if (url) {
    const ticket = { url, token, caHash: caHash(ca.certificate) }
    writeFileSync(join(root, 'etc/kiln/enrol.json'), JSON.stringify(ticket))
  }
  const outcome = () =>
    enrol(openTargetRoot(run), run).then(
      () => 'done',
      (error: { code?: string }) => error.code,
    )
  return { outcome, said, at: (path: string) => join(root, 'etc/kiln', path) }
}

test('a machine makes its key, gets its certificate and forgets the ticket', async () => {
  const { url, asked } = await serve(ca, sign)
  const { outcome, at } = machine(url)
  expect(await outcome()).toBe('done')
  expect(asked).toMatchObject([{ machine: 'node1', token }])
  expect(statSync(at('pki/machine.key')).mode & 0o777).toBe(0o600)
  const certificate = new X509Certificate(readFileSync(at('pki/machine.pem')))
  expect(certificate.subject).toBe('CN=node1')
  expect(readFileSync(at('pki/ca.pem'), 'utf8')).toBe(ca.certificate)
  expect(existsSync(at('enrol.json'))).toBe(false)
})

test('a lost answer is asked for again with the same key', async () => {
  const { url, asked } = await serve(ca, async (request, count) =>
    count < 3 ? { status: 503, body: 'later' } : sign(request, count),
  )
  const { outcome } = machine(url)
  expect(await outcome()).toBe('done')
  expect(asked).toHaveLength(3)
})

test('a key that is there already is used', async () => {
  const { url, asked } = await serve(ca, async (request, count) =>
    count === 1 ? { status: 403, body: '{"code":"X"}' } : sign(request, count),
  )
  const { outcome, at } = machine(url)
  expect(await outcome()).toBe('ENROL_REFUSED')
  const key = readFileSync(at('pki/machine.key'), 'utf8')
  expect(existsSync(at('enrol.json'))).toBe(true)
  expect(await outcome()).toBe('done')
  expect(readFileSync(at('pki/machine.key'), 'utf8')).toBe(key)
  expect(asked).toHaveLength(2)
})

test('a server of another authority never sees the token', async () => {
  const { url, asked } = await serve(stranger, sign)
  const { outcome, at } = machine(url)
  expect(await outcome()).toBe('ENROL_UNTRUSTED')
  expect(asked).toEqual([])
  expect(existsSync(at('pki/machine.pem'))).toBe(false)
})

test('a server that only shows our authority without its key is refused', async () => {
  const impostor: KeyPair = { certificate: ca.certificate, key: stranger.key }
  const { url, asked } = await serve(impostor, sign)
  const { outcome } = machine(url)
  expect(await outcome()).toBe('ENROL_FAILED')
  expect(asked).toEqual([])
})

test('an answer of another authority is not kept', async () => {
  const { url } = await serve(ca, async ({ csr }) => ({
    status: 200,
    body: {
      certificate: await signCsr(stranger, csr, {
        commonName: 'node1',
        names: [],
        use: ['client'],
        days: 1,
        now,
      }),
      ca: ca.certificate,
    },
  }))
  const { outcome, at } = machine(url)
  expect(await outcome()).toBe('ENROL_UNTRUSTED')
  expect(existsSync(at('pki/machine.pem'))).toBe(false)
})

test('without a ticket nothing is asked', async () => {
  expect(await machine(undefined).outcome()).toBe('done')
})
