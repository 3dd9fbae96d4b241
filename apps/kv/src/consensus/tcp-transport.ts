import type { Server as HttpServer } from 'node:http'
import type { Server, Socket } from 'node:net'
import { type Clock, Fault, type Log } from '@kiln/service'
import { encodeFrame } from './frame.ts'
import { createPeerHttp, handOverHttp, isHttp } from './peer-http.ts'
import { createPeerServer, dial, type PeerTls, refreshServers } from './peer-tls.ts'
import {
  type Answer,
  decodeAnswer,
  decodeHello,
  encodeAnswer,
  encodeHello,
  FrameReader,
  type Hello,
  packFrames,
  peerFormatVersion,
} from './peer-wire.ts'
import { type Announcement, decodeAnnouncement, encodeAnnouncement, unannounced } from './store-upgrade.ts'
import type { Member, MemberId, Transport } from './types.ts'

export type TcpTransportOptions = {
  self: MemberId
  clusterId: bigint
  listen: readonly { host: string; port: number }[]
  /** Where others reach this member; told to those that do not know it yet. */
  advertise?: readonly string[]
  tls?: PeerTls | undefined
  clock: Clock
  random: () => number
  log: Log
  /** Told to a machine that wants to join; see `discover.ts`. */
  describe?: () => readonly Member[]
  /** Told to each member that connects. */
  announce?: () => Announcement
}

export type PeerCounters = {
  peer: MemberId
  connected: boolean
  sent: number
  dropped: number
  bytesIn: number
  bytesOut: number
}

export type TcpTransport = Transport & {
  /** Where it really listens, for `port: 0`. */
  ports(): number[]
  /** Frames since the start, by peer, and their bytes; `dropped` are frames that found a full queue or no connection. */
  counters(): PeerCounters[]
  /** What the members that are connected now said about their programs. */
  announcements(): ReadonlyMap<MemberId, Announcement>
}

/** Frames and bytes that wait for a connection, or for one that is slow. */
const queueFramesMax = 1_000
const queueBytesMax = 64 << 20
const guestsMax = 16
const backoffMinMs = 50
const backoffMaxMs = 2_000
const helloTimeoutMs = 5_000
const tlsRefreshMs = 60_000

/** Listens for peers and connects to them: one connection in each direction, TCP or mutual TLS. */
export async function startTcpTransport(options: TcpTransportOptions): Promise<TcpTransport> {
  const peers = new Map<MemberId, Outbound>()
  let onLost: (to: MemberId) => void = () => undefined
  const connect = (id: MemberId, urls: readonly string[]): Outbound =>
    new Outbound(options, id, urls, {
      removed: () => inbound.deliver(id, encodeFrame({ kind: 'removed' })),
      lost: () => onLost(id),
    })
  // A member that was added while we were away cannot be in our log yet, but it must get answers for us to learn of it.
  const guests = new Set<MemberId>()
  const inbound = new Inbound(options, (id, urls) => {
    if (peers.has(id) || urls.length === 0 || guests.size >= guestsMax) return
    guests.add(id)
    peers.set(id, connect(id, urls))
  })
  await inbound.listen()
  const drop = (id: MemberId): void => {
    peers.get(id)?.close()
    peers.delete(id)
    guests.delete(id)
  }
  return {
    start: (receive, lost) => {
      onLost = lost
      inbound.start(receive)
    },
    send: (to, frame) => peers.get(to)?.send(frame),
    setPeers: (members) => {
      const wanted = new Map(members.map((member) => [member.id, member]))
      for (const id of [...peers.keys()]) if (!wanted.has(id) && !guests.has(id)) drop(id)
      for (const [id, member] of wanted) {
        guests.delete(id)
        const known = peers.get(id)
        if (known) known.setUrls(member.peerUrls)
        else peers.set(id, connect(id, member.peerUrls))
      }
    },
    setRemoved: (ids) => {
      for (const id of ids) drop(id)
      inbound.setRemoved(ids)
    },
    ports: () => inbound.ports(),
    counters: () =>
      [...peers].map(([peer, outbound]) => ({
        peer,
        ...outbound.counters(),
        bytesIn: inbound.bytesIn.get(peer) ?? 0,
      })),
    announcements: () =>
      new Map([...peers].flatMap(([peer, { announced }]) => (announced ? [[peer, announced] as const] : []))),
    stop: async () => {
      for (const peer of peers.values()) peer.close()
      await inbound.close()
    },
  }
}

/** The connection to one peer. While there is none, the newest frames wait for it. */
class Outbound {
  #options: TcpTransportOptions
  #to: MemberId
  #urls: readonly string[]
  #urlAt = 0
  #socket: Socket | undefined
  #welcome = false
  #queue: Uint8Array[] = []
  #queued = 0
  #backoffMs = backoffMinMs
  #cancelRetry: () => void = () => undefined
  #flushPlanned = false
  #closed = false
  #sent = 0
  #dropped = 0
  #bytesOut = 0
  #lastRefusal = ''
  #announced: Announcement = unannounced
  #tell: { removed(): void; lost(): void }

  constructor(
    options: TcpTransportOptions,
    to: MemberId,
    urls: readonly string[],
    tell: { removed(): void; lost(): void },
  ) {
    this.#options = options
    this.#to = to
    this.#urls = urls
    this.#tell = tell
    this.#connect()
  }

  /** Undefined while there is no connection. */
  get announced(): Announcement | undefined {
    return this.#welcome ? this.#announced : undefined
  }

  setUrls(urls: readonly string[]): void {
    this.#urls = urls
  }

  counters(): Omit<PeerCounters, 'peer' | 'bytesIn'> {
    return {
      connected: this.#welcome,
      sent: this.#sent,
      dropped: this.#dropped,
      bytesOut: this.#bytesOut,
    }
  }

  send(frame: Uint8Array): void {
    if (this.#closed) return
    const waiting = this.#queued + (this.#socket?.writableLength ?? 0)
    if (waiting + frame.length > queueBytesMax) {
      this.#dropped++
      return
    }
    this.#queue.push(frame)
    this.#queued += frame.length
    if (!this.#welcome) {
      while (this.#queue.length > queueFramesMax) {
        this.#queued -= this.#queue.shift()!.length
        this.#dropped++
      }
    } else if (!this.#flushPlanned) {
      // All frames of this turn go out in one write.
      this.#flushPlanned = true
      queueMicrotask(() => this.#flush())
    }
  }

  close(): void {
    this.#closed = true
    this.#cancelRetry()
    this.#flush()
    this.#socket?.end()
    this.#socket?.destroySoon()
  }

  #flush(): void {
    this.#flushPlanned = false
    if (!this.#welcome || this.#queue.length === 0) return
    this.#sent += this.#queue.length
    const bytes = packFrames(this.#queue)
    this.#bytesOut += bytes.length
    this.#socket!.write(bytes)
    this.#queue = []
    this.#queued = 0
  }

  #connect(): void {
    const { self, clusterId, tls, log, advertise = [] } = this.#options
    const url = this.#urls[this.#urlAt++ % this.#urls.length]
    if (url === undefined) {
      this.#retry()
      return
    }
    const reader = new FrameReader()
    let reason: unknown
    try {
      const socket = dial(url, tls, () => {
        const hello = {
          version: peerFormatVersion,
          purpose: 'frames' as const,
          clusterId,
          from: self,
          to: this.#to,
        }
        socket.write(packFrames([encodeHello({ ...hello, urls: advertise })]))
      })
      this.#socket = socket
      socket.setTimeout(helloTimeoutMs, () => socket.destroy(new Error('the peer did not answer')))
      socket.on('error', (error) => {
        reason = error
      })
      socket.on('data', (chunk) => {
        for (const frame of reader.push(chunk)) this.#onAnswer(socket, decodeAnswer(frame))
      })
      socket.on('close', () => {
        if (this.#socket !== socket) return
        this.#socket = undefined
        if (this.#welcome) log.info({ peer: this.#to.toString(16), url, error: reason }, 'peer disconnected')
        else log.debug({ peer: this.#to.toString(16), url, error: reason }, 'peer not reached')
        this.#welcome = false
        if (!this.#closed) this.#tell.lost()
        this.#retry()
      })
    } catch (error) {
      log.error({ error, url }, 'peer cannot be dialled')
      this.#retry()
    }
  }

  #onAnswer(socket: Socket, { code, body }: Answer): void {
    const { log } = this.#options
    if (code === '') {
      socket.setTimeout(0)
      socket.setKeepAlive(true, 5_000)
      this.#welcome = true
      this.#announced = decodeAnnouncement(body)
      this.#backoffMs = backoffMinMs
      this.#lastRefusal = ''
      log.info({ peer: this.#to.toString(16) }, 'peer connected')
      this.#flush()
      return
    }
    if (code !== this.#lastRefusal) log.error({ peer: this.#to.toString(16), code }, 'peer refused us')
    this.#lastRefusal = code
    this.#backoffMs = backoffMaxMs
    socket.destroy()
    if (code === 'STORE_MEMBER_REMOVED') this.#tell.removed()
  }

  #retry(): void {
    if (this.#closed) return
    const { clock, random } = this.#options
    this.#cancelRetry = clock.after(this.#backoffMs * (0.5 + random()), () => this.#connect())
    this.#backoffMs = Math.min(this.#backoffMs * 2, backoffMaxMs)
  }
}

/** The port that peers connect to. */
class Inbound {
  #options: TcpTransportOptions
  #servers: Server[] = []
  #sockets = new Set<Socket>()
  #members = new Map<Socket, MemberId>()
  /** What members sent since the start. */
  readonly bytesIn = new Map<MemberId, number>()
  #removed = new Set<MemberId>()
  #receive: ((from: MemberId, frame: Uint8Array) => void) | undefined
  #cancelRefresh: () => void = () => undefined
  #pems = ''
  readonly #http: HttpServer

  #onHello: (from: MemberId, urls: readonly string[]) => void

  constructor(options: TcpTransportOptions, onHello: (from: MemberId, urls: readonly string[]) => void) {
    this.#options = options
    this.#onHello = onHello
    this.#http = createPeerHttp(options.clusterId, () => options.describe?.() ?? [])
  }

  async listen(): Promise<void> {
    const { listen, tls } = this.#options
    for (const { host, port } of listen) {
      const server = createPeerServer(tls, (socket) => this.#onSocket(socket))
      await new Promise<void>((resolve, reject) => {
        server.once('error', (error) =>
          reject(
            new Fault('STORE_PORT_TAKEN', `cannot listen for peers on ${host}:${port}`, { cause: error }),
          ),
        )
        server.listen({ host, port }, resolve)
      })
      server.on('error', (error) => this.#options.log.error({ error }, 'peer port failed'))
      this.#servers.push(server)
    }
    if (tls) this.#planRefresh()
  }

  start(receive: (from: MemberId, frame: Uint8Array) => void): void {
    this.#receive = receive
  }

  deliver(from: MemberId, frame: Uint8Array): void {
    this.#receive?.(from, frame)
  }

  setRemoved(ids: readonly MemberId[]): void {
    this.#removed = new Set(ids)
    for (const [socket, id] of this.#members) if (this.#removed.has(id)) socket.destroy()
  }

  ports(): number[] {
    return this.#servers.map((server) => {
      const address = server.address()
      return typeof address === 'object' && address !== null ? address.port : 0
    })
  }

  async close(): Promise<void> {
    this.#cancelRefresh()
    this.#receive = undefined
    const closed = this.#servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    )
    for (const socket of this.#sockets) socket.destroy()
    await Promise.all(closed)
  }

  #onSocket(socket: Socket): void {
    const { log } = this.#options
    const reader = new FrameReader()
    let from: MemberId | undefined
    this.#sockets.add(socket)
    socket.setTimeout(helloTimeoutMs, () => socket.destroy())
    socket.on('error', (error) => log.debug({ error }, 'connection of a peer failed'))
    socket.on('close', () => {
      this.#sockets.delete(socket)
      this.#members.delete(socket)
    })
    let isFirst = true
    socket.on('data', (chunk) => {
      if (isFirst && isHttp(chunk)) {
        handOverHttp(this.#http, socket, chunk)
        return
      }
      isFirst = false
      if (from !== undefined) this.bytesIn.set(from, (this.bytesIn.get(from) ?? 0) + chunk.length)
      try {
        for (const frame of reader.push(chunk)) {
          if (socket.destroyed) return
          if (from !== undefined) this.#receive?.(from, frame)
          else from = this.#welcome(socket, frame)
        }
      } catch (error) {
        log.warn({ error, address: socket.remoteAddress }, 'connection of a peer is closed for bad bytes')
        socket.destroy()
      }
    })
  }

  /** Answers a hello; returns who it is if frames may follow. */
  #welcome(socket: Socket, frame: Uint8Array): MemberId | undefined {
    const hello = decodeHello(frame)
    if (hello === undefined) throw new Error('the first frame is no hello')
    const code = this.#refusal(hello)
    const body = code === '' ? this.#answer(hello) : new Uint8Array(0)
    socket.write(packFrames([encodeAnswer({ code, body })]))
    if (code !== '' || hello.purpose === 'describe') {
      if (code !== '') {
        const peer = hello.from.toString(16)
        this.#options.log.warn({ peer, code, address: socket.remoteAddress }, 'a peer was refused')
      }
      socket.end()
      return undefined
    }
    socket.setTimeout(0)
    socket.setKeepAlive(true, 5_000)
    // Nothing that an earlier run of it sent may be taken after this.
    for (const [old, id] of this.#members) if (id === hello.from) old.destroy()
    this.#members.set(socket, hello.from)
    this.#onHello(hello.from, hello.urls)
    return hello.from
  }

  #refusal(hello: Hello): string {
    const { clusterId, self } = this.#options
    if (hello.version !== peerFormatVersion) return 'STORE_FORMAT_UNKNOWN'
    // A member that does not know the others itself cannot tell.
    if (hello.purpose === 'describe') return this.#options.describe?.().length ? '' : 'STORE_NOT_READY'
    if (hello.clusterId !== clusterId) return 'STORE_CLUSTER_MISMATCH'
    if (this.#removed.has(hello.from)) return 'STORE_MEMBER_REMOVED'
    if (hello.to !== self) return 'STORE_MEMBER_MISMATCH'
    return ''
  }

  #answer({ purpose }: Hello): Uint8Array {
    if (purpose === 'describe') return this.#describe()
    return this.#options.announce ? encodeAnnouncement(this.#options.announce()) : new Uint8Array(0)
  }

  #describe(): Uint8Array {
    const members = (this.#options.describe?.() ?? []).map((member) => ({
      ...member,
      id: member.id.toString(16),
    }))
    return new TextEncoder().encode(
      JSON.stringify({ clusterId: this.#options.clusterId.toString(16), members }),
    )
  }

  #planRefresh(): void {
    const { clock, tls, log } = this.#options
    try {
      this.#pems = refreshServers(this.#servers, tls!, this.#pems)
    } catch (error) {
      log.error({ error }, 'peer certificates cannot be read again')
    }
    this.#cancelRefresh = clock.after(tlsRefreshMs, () => this.#planRefresh())
  }
}
