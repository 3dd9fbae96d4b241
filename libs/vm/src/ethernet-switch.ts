import { rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { Fault } from '@kiln/service'
import { FrameReader, isGroupAddressed, macText } from './frame-reader.ts'
import { seededRandom } from './seeded.ts'
import { type LinkFaultRule, passage } from './switch-faults.ts'

export type SwitchOptions = {
  /** Unix socket that virtual machines connect to with `-netdev stream`. */
  path: string
  /** Names of nodes by MAC; an unknown MAC is its own name. */
  nodes: Record<string, string>
  /** Seed of losses. */
  seed?: number
}

export type SwitchStatistics = {
  ports: number
  frames: number
  bytes: number
  dropped: number
  delayed: number
}

/** Bytes waiting for one port; above it senders pause, and frames for a port that does not drain are dropped. */
const queueBytesMax = 1024 * 1024
/** A port that has not drained for so long counts as stalled (a stopped machine): its frames are dropped. */
const stalledAfterMs = 200
/** Frames held back by delay rules. */
const delayedFramesMax = 20_000

type Port = {
  socket: Socket
  reader: FrameReader
  /** Node name, once its first frame told the MAC. */
  node: string
  fullSince: number | undefined
  /** Ports that wait for this one to drain. */
  waiting: Set<Port>
}

/**
 * An Ethernet switch for QEMU's stream sockets in this process: learns addresses, forwards, and can cut, delay and
 * lose frames per direction between nodes.
 */
export class EthernetSwitch {
  readonly path: string
  readonly #server: Server
  readonly #ports = new Set<Port>()
  readonly #learned = new Map<string, Port>()
  readonly #nodes: Map<string, string>
  readonly #random: () => number
  #rules: LinkFaultRule[] = []
  #statistics = { frames: 0, bytes: 0, dropped: 0, delayed: 0 }
  #delayedNow = 0

  private constructor(options: SwitchOptions) {
    this.path = options.path
    this.#nodes = new Map(Object.entries(options.nodes).map(([mac, node]) => [mac.toLowerCase(), node]))
    this.#random = seededRandom(options.seed ?? 1)
    this.#server = createServer((socket) => this.#accept(socket))
  }

  static async listen(options: SwitchOptions): Promise<EthernetSwitch> {
    const created = new EthernetSwitch(options)
    rmSync(options.path, { force: true })
    await new Promise<void>((resolve, reject) => {
      created.#server.once('error', (cause) =>
        reject(new Fault('SWITCH_LISTEN', `the switch cannot listen on ${options.path}`, { cause })),
      )
      created.#server.listen(options.path, resolve)
    })
    return created
  }

  /** Replaces all fault rules; an empty list heals everything. */
  setFaults(rules: LinkFaultRule[]): void {
    this.#rules = rules
  }

  get faults(): readonly LinkFaultRule[] {
    return this.#rules
  }

  statistics(): SwitchStatistics {
    return { ports: this.#ports.size, ...this.#statistics }
  }

  async close(): Promise<void> {
    for (const port of this.#ports) port.socket.destroy()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    rmSync(this.path, { force: true })
  }

  #accept(socket: Socket): void {
    const port: Port = {
      socket,
      reader: new FrameReader(),
      node: '?',
      fullSince: undefined,
      waiting: new Set(),
    }
    this.#ports.add(port)
    socket.on('data', (chunk: Buffer) => {
      try {
        const frames = port.reader.push(chunk)
        for (const frame of frames) this.#forward(port, frame)
      } catch (error) {
        socket.destroy(error as Error)
      }
    })
    socket.on('drain', () => this.#drained(port))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#ports.delete(port)
      for (const [mac, owner] of this.#learned) if (owner === port) this.#learned.delete(mac)
      this.#drained(port)
    })
  }

  #forward(from: Port, frame: Buffer): void {
    this.#statistics.frames++
    this.#statistics.bytes += frame.length
    const source = macText(frame, 'source')
    this.#learned.set(source, from)
    from.node = this.#nodes.get(source) ?? source
    const known = isGroupAddressed(frame) ? undefined : this.#learned.get(macText(frame, 'destination'))
    if (known) {
      if (known !== from) this.#pass(from, known, frame)
      return
    }
    for (const to of this.#ports) if (to !== from) this.#pass(from, to, frame)
  }

  #pass(from: Port, to: Port, frame: Buffer): void {
    const result = passage(this.#rules, from.node, to.node, this.#random)
    switch (result.kind) {
      case 'drop':
        this.#statistics.dropped++
        return
      case 'forward':
        this.#send(from, to, frame)
        return
      case 'delay':
        if (this.#delayedNow >= delayedFramesMax) {
          this.#statistics.dropped++
          return
        }
        this.#delayedNow++
        this.#statistics.delayed++
        setTimeout(() => {
          this.#delayedNow--
          this.#send(undefined, to, frame)
        }, result.ms)
    }
  }

  #send(from: Port | undefined, to: Port, frame: Buffer): void {
    if (to.socket.destroyed) return
    if (to.socket.writableLength > queueBytesMax) {
      to.fullSince ??= performance.now()
      if (!from || performance.now() - to.fullSince > stalledAfterMs) {
        this.#statistics.dropped++
        return
      }
      this.#pauseUntilDrained(from, to)
    }
    to.socket.write(frame)
  }

  #pauseUntilDrained(from: Port, to: Port): void {
    if (to.waiting.has(from)) return
    to.waiting.add(from)
    from.socket.pause()
    setTimeout(() => this.#release(from, to), stalledAfterMs)
  }

  #release(from: Port, to: Port): void {
    if (!to.waiting.delete(from)) return
    for (const port of this.#ports) if (port.waiting.has(from)) return
    from.socket.resume()
  }

  #drained(port: Port): void {
    port.fullSince = undefined
    for (const from of [...port.waiting]) this.#release(from, port)
  }
}
