import { connect } from 'node:net'
import { type Log, systemClock } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { discoverCluster } from './discover.ts'
import { FrameReader, packFrames } from './peer-wire.ts'
import { startTcpTransport, type TcpTransport } from './tcp-transport.ts'
import type { Member } from './types.ts'

const quiet: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quiet,
}

const running: TcpTransport[] = []
afterEach(async () => {
  for (const transport of running.splice(0)) await transport.stop()
})

async function start(self: bigint, options: { clusterId?: bigint; members?: Member[] } = {}) {
  const advertise: string[] = []
  const transport = await startTcpTransport({
    self,
    clusterId: options.clusterId ?? 7n,
    listen: [{ host: '127.0.0.1', port: 0 }],
    advertise,
    clock: systemClock,
    random: Math.random,
    log: quiet,
    describe: () => options.members ?? [],
  })
  running.push(transport)
  const received: string[] = []
  const waiting: (() => void)[] = []
  const lost: bigint[] = []
  transport.start(
    (from, frame) => {
      received.push(`${from}:${Buffer.from(frame).toString()}`)
      for (const wake of waiting.splice(0)) wake()
    },
    (to) => lost.push(to),
  )
  const url = `http://127.0.0.1:${transport.ports()[0]}`
  advertise.push(url)
  const member: Member = { id: self, name: '', peerUrls: [url], clientUrls: [], learner: false }
  /** Resolves when that many frames have arrived. */
  async function arrived(count: number): Promise<string[]> {
    while (received.length < count) await new Promise<void>((resolve) => waiting.push(resolve))
    return received
  }
  return { transport, member, url, received, arrived, lost }
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

test('frames wait for the connection and arrive in order, small and large', async () => {
  const a = await start(1n)
  const b = await start(2n)
  a.transport.setPeers([b.member])
  a.transport.send(2n, bytes('one'))
  a.transport.send(2n, bytes('x'.repeat(300_000)))
  a.transport.send(2n, bytes('three'))
  const received = await b.arrived(3)
  expect(received.map((text) => text.length)).toEqual([5, 300_002, 7])
})

test('a member that is not known yet can be answered', async () => {
  const a = await start(1n)
  const b = await start(2n)
  a.transport.setPeers([b.member])
  a.transport.send(2n, bytes('hello'))
  await b.arrived(1)
  b.transport.send(1n, bytes('back'))
  expect(await a.arrived(1)).toEqual(['2:back'])
})

test('a connection is made again after the other side went away', async () => {
  const a = await start(1n)
  const b = await start(2n)
  a.transport.setPeers([b.member])
  a.transport.send(2n, bytes('one'))
  await b.arrived(1)
  const port = b.transport.ports()[0]!
  expect(a.lost).toEqual([])
  await b.transport.stop()
  await expect.poll(() => a.lost[0]).toBe(2n)
  const again = await startTcpTransport({
    self: 2n,
    clusterId: 7n,
    listen: [{ host: '127.0.0.1', port }],
    clock: systemClock,
    random: Math.random,
    log: quiet,
  })
  running.push(again)
  const got = new Promise<string>((resolve) =>
    again.start(
      (_, frame) => resolve(Buffer.from(frame).toString()),
      () => undefined,
    ),
  )
  const repeat = setInterval(() => a.transport.send(2n, bytes('two')), 20)
  expect(await got).toBe('two')
  clearInterval(repeat)
})

test('a member of another cluster is refused', async () => {
  const a = await start(1n, { clusterId: 8n })
  const b = await start(2n)
  a.transport.setPeers([b.member])
  a.transport.send(2n, bytes('wrong'))
  const c = await start(3n)
  c.transport.setPeers([b.member])
  c.transport.send(2n, bytes('right'))
  expect(await b.arrived(1)).toEqual(['3:right'])
  expect(a.transport.counters()).toMatchObject([{ connected: false, sent: 0 }])
})

test('a removed member is told so', async () => {
  const a = await start(1n)
  const b = await start(2n)
  b.transport.setRemoved?.([1n])
  a.transport.setPeers([b.member])
  expect((await a.arrived(1))[0]?.startsWith('2:')).toBe(true)
})

test('a machine that joins learns its id and the members', async () => {
  const joining: Member = {
    id: 99n,
    name: '',
    peerUrls: ['http://127.0.0.1:1'],
    clientUrls: [],
    learner: true,
  }
  const a = await start(1n, { members: [joining] })
  const initialCluster = [a.member, { ...joining, id: 0n }]
  expect(await discoverCluster({ ownPeerUrls: joining.peerUrls, initialCluster })).toEqual({
    clusterId: 7n,
    self: 99n,
    members: [joining],
  })
  await expect(
    discoverCluster({ ownPeerUrls: ['http://127.0.0.1:2'], initialCluster }),
  ).rejects.toMatchObject({
    code: 'STORE_JOIN_REFUSED',
  })
  const unready = await start(4n)
  await expect(
    discoverCluster({ ownPeerUrls: joining.peerUrls, initialCluster: [unready.member] }),
  ).rejects.toMatchObject({ code: 'STORE_CLUSTER_UNREACHABLE' })
})

test('garbage closes the connection and nothing else', async () => {
  const a = await start(1n)
  await new Promise<void>((resolve) => {
    const socket = connect({ host: '127.0.0.1', port: a.transport.ports()[0]! }, () =>
      socket.write(packFrames([bytes('GET / HTTP/1.1')])),
    )
    socket.on('error', () => undefined)
    socket.on('close', () => resolve())
  })
  const b = await start(2n)
  b.transport.setPeers([a.member])
  b.transport.send(1n, bytes('fine'))
  expect(await a.arrived(1)).toEqual(['2:fine'])
})

test('frames are found however the bytes are cut', () => {
  const packed = packFrames([bytes('a'), bytes(''), bytes('long'.repeat(50))])
  for (const size of [1, 2, 3, 5, 7, 64, 1000]) {
    const reader = new FrameReader()
    const frames: string[] = []
    for (let at = 0; at < packed.length; at += size) {
      for (const frame of reader.push(packed.subarray(at, at + size)))
        frames.push(Buffer.from(frame).toString())
    }
    expect(frames).toEqual(['a', '', 'long'.repeat(50)])
  }
})

test('the peer port tells anybody who the members are, over HTTP', async () => {
  const members: Member[] = [
    {
      id: 0xffff_ffff_ffff_ffffn,
      name: 'a',
      peerUrls: ['http://a:1'],
      clientUrls: ['http://a:2'],
      learner: false,
    },
    { id: 2n, name: '', peerUrls: ['http://b:1'], clientUrls: [], learner: true },
  ]
  const { url } = await start(1n, { members })
  const response = await fetch(`${url}/members`)
  expect([response.status, response.headers.get('x-etcd-cluster-id')]).toEqual([200, '7'])
  expect(await response.text()).toBe(
    '[{"id":18446744073709551615,"peerURLs":["http://a:1"],"name":"a","clientURLs":["http://a:2"]},' +
      '{"id":2,"peerURLs":["http://b:1"],"isLearner":true}]\n',
  )
  expect((await fetch(`${url}/members`, { method: 'POST', body: 'x' })).status).toBe(405)
  expect((await fetch(`${url}/raft`)).status).toBe(404)
})
