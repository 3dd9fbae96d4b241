import { createHash } from 'node:crypto'
import { createSocket } from 'node:dgram'
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { createCa, issueCertificate, type KeyPair } from '@kiln/pki'

/** What `served-fixtures.json` holds: bodies of the test server by path, base64, and the reference's certificates. */
export type Fixtures = { routes: Record<string, string>; publicKeyPem: string; caBundlePem: string }

const address = '127.0.0.1'
const headerValues = { 'x-auth': 'r8ewap98gfh4d8', 'keep-alive': '300' }
const overwritten = {
  'keep-alive': '1000',
  accept: 'application/json',
  'accept-encoding': 'identity, compress',
  'user-agent': 'MyUA',
}
const certificateDays = 2

/** Our own authority in place of the reference's, whose private key is not in the case data. */
export type Authority = {
  server: KeyPair
  /** What to put in place of what in a config: certificates in every form, and their hashes. */
  replacements: [string, string][]
  routes: Record<string, Buffer>
}

/** Makes an authority, and the served bodies with its certificates. */
export async function makeAuthority(fixtures: Fixtures): Promise<Authority> {
  const now = new Date()
  const ca = await createCa({ name: 'kiln conformance', days: certificateDays, now })
  const other = await createCa({ name: 'kiln conformance, second', days: certificateDays, now })
  const server = await issueCertificate(ca, {
    commonName: address,
    names: [address, 'localhost'],
    use: ['server'],
    days: certificateDays,
    now,
  })
  const routes: Record<string, Buffer> = Object.fromEntries(
    Object.entries(fixtures.routes).map(([path, body]) => [path, Buffer.from(body, 'base64')]),
  )
  const one = Buffer.from(ca.certificate)
  const bundle = Buffer.from(ca.certificate + other.certificate)
  const replaced: [string, Buffer][] = [
    ['/caBundle', bundle],
    ['/certificates', one],
    ['/certificates_compressed', gzipSync(one)],
  ]
  const pairs: [Buffer, Buffer][] = [
    [Buffer.from(fixtures.caBundlePem), bundle],
    [Buffer.from(fixtures.publicKeyPem), one],
  ]
  for (const [path, body] of replaced) {
    const before = routes[path]
    if (before) pairs.push([before, body])
    routes[path] = body
  }
  return { server, routes, replacements: pairs.flatMap(([from, to]) => formsOf(from, to)) }
}

/** A body as it may stand in a config: base64, URL-encoded, or by its hash; longer forms first. */
function formsOf(from: Buffer, to: Buffer): [string, string][] {
  const forms: [string, string][] = []
  const trimmed = (bytes: Buffer): Buffer => Buffer.from(bytes.toString().trimEnd())
  for (const [a, b] of [
    [from, to],
    [trimmed(from), trimmed(to)],
  ] as const) {
    forms.push([a.toString('base64'), b.toString('base64')])
    forms.push([encodeURIComponent(a.toString()), encodeURIComponent(b.toString())])
    forms.push([a.toString(), b.toString()])
  }
  for (const algorithm of ['sha512', 'sha256']) {
    const sum = (bytes: Buffer): string => createHash(algorithm).update(bytes).digest('hex')
    forms.push([sum(from), sum(to)])
  }
  return forms
}

/** A server that a case or all of them use. */
export type Serving = { port: number; close(): Promise<void> }

export async function serve(listener: RequestListener, port = 0, tls?: KeyPair): Promise<Serving> {
  const server: Server = tls
    ? createTlsServer({ cert: tls.certificate, key: tls.key }, listener)
    : createServer(listener)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, address, resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** Answers as the reference's test server on port 8080 does (README.md beside the cases). */
export function fixtureListener(routes: Record<string, Buffer>): RequestListener {
  return (request, response) => {
    const path = new URL(request.url ?? '/', 'http://fixture').pathname
    const [, base, suffix] = /^(.*?)(_headers(?:_redirect(?:ed)?|_overwrite)?)?$/.exec(path)!
    const body = routes[path] ?? routes[base!]
    if (!body) return answer(response, 404)
    switch (suffix) {
      case undefined:
        return answer(response, 200, body)
      case '_headers_overwrite':
        return answer(response, has(request, overwritten) ? 200 : 400, body)
      case '_headers_redirected': {
        const carried = Object.keys(headerValues).some((name) =>
          name === 'keep-alive' ? request.headers[name] === headerValues[name] : name in request.headers,
        )
        return answer(response, carried ? 400 : 200, body)
      }
      case '_headers_redirect':
        if (!hasDefaults(request)) return answer(response, 400)
        response.setHeader('Location', `${base}_headers_redirected`)
        return answer(response, 302)
      default:
        return answer(response, hasDefaults(request) ? 200 : 400, body)
    }
  }
}

function answer(response: ServerResponse, status: number, body?: Buffer): void {
  response.statusCode = status
  response.end(status === 200 ? body : undefined)
}

const has = (request: IncomingMessage, wanted: Record<string, string>): boolean =>
  Object.entries(wanted).every(([name, value]) => request.headers[name] === value)

const hasDefaults = (request: IncomingMessage): boolean => {
  const encoding = request.headers['accept-encoding']
  const accept = request.headers.accept
  const isConfig = request.url?.startsWith('/config') === true
  return (
    has(request, headerValues) &&
    (request.headers['user-agent'] ?? '').startsWith('Ignition/') &&
    (encoding === 'identity' || (!isConfig && encoding === undefined)) &&
    (!isConfig || (accept ?? '').startsWith('application/vnd.coreos.ignition+json'))
  )
}

const tftpPort = 69
const tftpBlockBytes = 512
const tftpError = 5
const tftpData = 3

/** A TFTP server (RFC 1350) that knows `contents` and `config`, one reader per block, no options. */
export async function serveTftp(routes: Record<string, Buffer>): Promise<Serving> {
  const socket = createSocket('udp4')
  socket.on('message', (message, peer) => {
    if (message.readUInt16BE(0) !== 1) return
    const name = message.subarray(2, message.indexOf(0, 2)).toString()
    const route = name.includes('contents') ? '/contents' : name.includes('config') ? '/config' : ''
    const transfer = createSocket('udp4')
    const body = routes[route]
    const send = (block: number): void => {
      if (!body) return
      const from = (block - 1) * tftpBlockBytes
      const header = Buffer.from([0, tftpData, block >> 8, block & 0xff])
      transfer.send(
        Buffer.concat([header, body.subarray(from, from + tftpBlockBytes)]),
        peer.port,
        peer.address,
      )
    }
    transfer.on('message', (reply) => {
      const block = reply.readUInt16BE(2)
      if (reply.readUInt16BE(0) !== 4 || block * tftpBlockBytes > (body?.length ?? 0)) transfer.close()
      else send(block + 1)
    })
    transfer.bind(0, address, () => {
      if (body) return send(1)
      const error = Buffer.concat([Buffer.from([0, tftpError, 0, 1]), Buffer.from('File not found\0')])
      transfer.send(error, peer.port, peer.address, () => transfer.close())
    })
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    socket.bind(tftpPort, address, resolve)
  })
  return { port: tftpPort, close: () => new Promise((resolve) => socket.close(() => resolve())) }
}
