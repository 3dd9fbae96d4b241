import { execFile } from 'node:child_process'
import { Resolver } from 'node:dns/promises'
import { connect } from 'node:net'
import { createLog } from '@kiln/service'
import * as dns from 'dns-packet'
import fc from 'fast-check'
import { afterEach, expect, test } from 'vitest'
import { respond } from './dns-message.ts'
import { type DnsServer, serveDns } from './dns-server.ts'
import { answerQuestion } from './service-answer.ts'
import { ServiceDirectory } from './service-directory.ts'

const log = createLog('test', 'silent')
const opened: DnsServer[] = []
afterEach(async () => {
  for (const server of opened.splice(0)) await server.close()
})

const directory = new ServiceDirectory('node1')
directory.replace(
  Array.from({ length: 300 }, (_, index) => ({
    service: index < 2 ? 'web' : 'large',
    machine: `node${index + 2}`,
    pod: 'hello',
    record: {
      address: `10.77.${index >> 8}.${index & 255}`,
      addresses: ['fd00::1'],
      ready: true,
      scope: 'cluster' as const,
      ports: [{ name: 'http', port: 8000 + index, protocol: 'TCP' as const }],
    },
  })),
)
const answer = (question: dns.Question) => answerQuestion(question, directory, () => 0)

async function start(): Promise<{ server: DnsServer; resolver: Resolver; port: number }> {
  const server = await serveDns({ address: '127.0.0.88', port: 0, answer, log })
  opened.push(server)
  const port = server.port!
  const resolver = new Resolver({ timeout: 2_000, tries: 1 })
  resolver.setServers([`127.0.0.88:${port}`])
  return { server, resolver, port }
}

test('a resolver of another make gets addresses, ports and errors', async () => {
  const { resolver } = await start()
  expect((await resolver.resolve4('web.svc.kiln')).sort()).toEqual(['10.77.0.0', '10.77.0.1'])
  expect(await resolver.resolve4('web.svc.kiln', { ttl: true })).toContainEqual({
    address: '10.77.0.0',
    ttl: 1,
  })
  expect(await resolver.resolve6('web.svc.kiln')).toEqual(['fd00::1'])
  expect(await resolver.resolveSrv('_http._tcp.node2.web.svc.kiln')).toEqual([
    expect.objectContaining({ name: 'hello.node2.web.svc.kiln', port: 8000, priority: 0, weight: 1 }),
  ])
  await expect(resolver.resolve4('none.svc.kiln')).rejects.toMatchObject({ code: 'ENOTFOUND' })
  await expect(resolver.resolveTxt('web.svc.kiln')).rejects.toMatchObject({ code: 'ENODATA' })
  await expect(resolver.resolve4('example.com')).rejects.toMatchObject({ code: 'EREFUSED' })
})

test('what does not fit into a datagram is asked for again over TCP', async () => {
  const { resolver } = await start()
  expect(await resolver.resolveSrv('large.svc.kiln')).toHaveLength(256)
})

test('several questions on one connection are answered in order; what is no question ends it', async () => {
  const { port } = await start()
  const ask = (id: number): Buffer =>
    dns.streamEncode({ type: 'query', id, questions: [{ name: 'web.svc.kiln', type: 'A' }] })
  const talk = (bytes: Buffer): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      const got: Buffer[] = []
      const socket = connect(port, '127.0.0.88', () => socket.write(bytes))
      socket.on('data', (chunk) => got.push(chunk))
      socket.on('error', reject)
      socket.on('close', () => resolve(Buffer.concat(got)))
      setTimeout(() => socket.end(), 300).unref()
    })
  const got = await talk(Buffer.concat([ask(1), ask(2)]))
  expect(dns.streamDecode(got).id).toBe(1)
  expect(dns.streamDecode(got.subarray(got.readUInt16BE(0) + 2)).id).toBe(2)
  expect((await talk(Buffer.from([0xff, 0xff, 1, 2]))).length).toBe(0)
  expect((await talk(Buffer.from([0, 1, 2]))).length).toBe(0)
})

test('an address that is taken is tried again, and closing ends the trying', async () => {
  const { port } = await start()
  const second = await serveDns({ address: '127.0.0.88', port, answer, log })
  expect(second.port).toBeUndefined()
  await second.close()
})

const query = (more: Partial<dns.Packet> = {}): Buffer =>
  dns.encode({
    type: 'query',
    id: 7,
    flags: dns.RECURSION_DESIRED,
    questions: [{ name: 'web.svc.kiln', type: 'A' }],
    ...more,
  })
const rcode = (response: Buffer | undefined): number => response!.readUInt16BE(2) & 15

test('responses keep id, question and the wish for recursion, and are authoritative for the zone only', () => {
  const response = dns.decode(respond(query(), 'udp', answer)!)
  expect(response).toMatchObject({ id: 7, type: 'response', flag_aa: true, flag_rd: true, flag_ra: false })
  expect(response.questions).toEqual([{ name: 'web.svc.kiln', type: 'A', class: 'IN' }])
  const refused = respond(query({ questions: [{ name: 'example.com', type: 'A' }] }), 'udp', answer)!
  expect(rcode(refused)).toBe(5)
  expect(dns.decode(refused).flag_aa).toBe(false)
})

test('EDNS is answered in kind, an unknown version by its code, and the size asked for is kept', () => {
  const opt = (version: number, size: number): dns.Answer => ({
    type: 'OPT',
    name: '.',
    udpPayloadSize: size,
    extendedRcode: 0,
    ednsVersion: version,
    flags: 0,
    flag_do: false,
    options: [],
  })
  const large: dns.Question[] = [{ name: 'large.svc.kiln', type: 'AAAA' }]
  const known = dns.decode(respond(query({ questions: large, additionals: [opt(0, 4096)] }), 'udp', answer)!)
  expect(known.additionals?.[0]).toMatchObject({ type: 'OPT', udpPayloadSize: 1232 })
  expect(known.flag_tc).toBe(false)
  const newer = dns.decode(respond(query({ additionals: [opt(1, 4096)] }), 'udp', answer)!)
  expect(newer.additionals?.[0]).toMatchObject({ extendedRcode: 1 })
  const all: dns.Question[] = [{ name: 'large.svc.kiln', type: 'A' }]
  for (const size of [0, 512, 65_535]) {
    const response = respond(query({ questions: all, additionals: [opt(0, size)] }), 'udp', answer)!
    expect(response.length).toBeLessThanOrEqual(1232)
    expect(dns.decode(response)).toMatchObject({ flag_tc: true, answers: [] })
  }
  expect(respond(query({ questions: all }), 'tcp', answer)!.length).toBeLessThanOrEqual(65_535)
})

test('bad questions get their code, and what is no question nothing', () => {
  expect(respond(Buffer.alloc(11), 'udp', answer)).toBeUndefined()
  expect(respond(query({ type: 'response' }), 'udp', answer)).toBeUndefined()
  expect(rcode(respond(query({ flags: 4 << 11 }), 'udp', answer))).toBe(4)
  expect(rcode(respond(query({ questions: [] }), 'udp', answer))).toBe(1)
  const two: dns.Question[] = [
    { name: 'a', type: 'A' },
    { name: 'b', type: 'A' },
  ]
  expect(rcode(respond(query({ questions: two }), 'udp', answer))).toBe(1)
  expect(rcode(respond(query().subarray(0, 20), 'udp', answer))).toBe(1)
  const odd = Buffer.from(query())
  odd[14] = 0xff
  expect(rcode(respond(odd, 'udp', answer))).toBe(5)
})

test('no bytes make it fail, and no response is longer than its transport', () => {
  const head = fc.constantFrom(query(), query({ questions: [{ name: 'large.svc.kiln', type: 'SRV' }] }))
  const mutated = fc
    .tuple(head, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }))
    .map(([bytes, changes]) => {
      const copy = Buffer.from(bytes)
      for (const [at, value] of changes) copy[at % copy.length] = value
      return copy
    })
  const raw = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes))
  fc.assert(
    fc.property(fc.oneof(mutated, raw), (bytes) => {
      const response = respond(bytes, 'udp', answer)
      if (!response) return
      expect(response.length).toBeLessThanOrEqual(1232)
      expect(response.readUInt16BE(0)).toBe(bytes.readUInt16BE(0))
      expect(() => dns.decode(response)).not.toThrow()
    }),
    { numRuns: 2_000 },
  )
})

test('dig understands what is said', async (context) => {
  const { port } = await start()
  const output = await new Promise<string | undefined>((resolve) => {
    const args = ['@127.0.0.88', '-p', String(port), '+nocookie', '+norecurse', 'web.svc.kiln', 'SRV']
    execFile('dig', args, { timeout: 10_000 }, (error, stdout) =>
      resolve((error as NodeJS.ErrnoException | null)?.code === 'ENOENT' ? undefined : stdout),
    )
  })
  if (output === undefined) return context.skip('dig is not installed (Debian: bind9-dnsutils)')
  expect(output).toMatch(/status: NOERROR/)
  expect(output).toMatch(/SRV\s+0 1 8000 hello\.node2\.web\.svc\.kiln\./)
  expect(output).not.toMatch(/WARNING|malformed/i)
})
