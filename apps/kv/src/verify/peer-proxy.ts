import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import net from 'node:net'

export type PeerProxy = {
  port: number
  close(): Promise<void>
}

/** Which pairs of members do not hear each other now; names in alphabetical order with a space between. */
export class Partition {
  readonly #cut = new Set<string>()
  readonly #sockets = new Map<string, Set<net.Socket>>()

  cut(a: string, b: string): void {
    this.#cut.add(linkOf(a, b))
    // Nothing arrives any more, and nobody is told: that is what a network does.
    for (const socket of this.#sockets.get(linkOf(a, b)) ?? []) socket.pause()
  }

  isCut(link: string): boolean {
    return this.#cut.has(link)
  }

  heal(): void {
    for (const link of this.#cut) {
      for (const socket of this.#sockets.get(link) ?? []) socket.destroy()
    }
    this.#cut.clear()
  }

  add(link: string, socket: net.Socket): void {
    const sockets = this.#sockets.get(link) ?? new Set()
    this.#sockets.set(link, sockets.add(socket))
    socket.once('close', () => sockets.delete(socket))
  }
}

export const linkOf = (a: string, b: string): string => [a, b].sort().join(' ')

/**
 * Stands before a member's port for its peers. Whose a connection is, is read from /proc: the process that has the other end of it.
 * A connection whose owner cannot be told is refused.
 */
export function startPeerProxy(options: {
  member: string
  targetPort: number
  port: number
  partition: Partition
  pids(): { member: string; pid: number | undefined }[]
}): Promise<PeerProxy> {
  const { member, targetPort, port, partition } = options
  const open = new Set<net.Socket>()
  const track = (socket: net.Socket): void => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    socket.on('error', () => socket.destroy())
  }
  const server = net.createServer((inner) => {
    track(inner)
    const outer = net.connect(targetPort, '127.0.0.1')
    track(outer)
    inner.once('close', () => outer.destroy())
    outer.once('close', () => inner.destroy())
    // Looking into /proc takes its time: not for a member that is down, whose peers try again and again.
    outer.once('connect', () => {
      const from = ownerOf(inner.remotePort ?? 0, port, options.pids())
      if (from === undefined) return void inner.destroy()
      const link = linkOf(from, member)
      partition.add(link, inner)
      partition.add(link, outer)
      if (partition.isCut(link)) return
      relay(inner, outer, () => partition.isCut(link))
      relay(outer, inner, () => partition.isCut(link))
    })
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () =>
      resolve({
        port,
        close: () =>
          new Promise((done) => {
            for (const socket of open) socket.destroy()
            server.close(() => done())
          }),
      }),
    )
  })
}

function relay(from: net.Socket, to: net.Socket, isCut: () => boolean): void {
  from.on('data', (chunk) => {
    if (isCut() || to.destroyed) return
    if (!to.write(chunk)) {
      from.pause()
      to.once('drain', () => {
        if (!isCut()) from.resume()
      })
    }
  })
}

/** The member whose process holds the socket from `localPort` to `remotePort` on the loopback. See proc_net_tcp and proc(5). */
function ownerOf(
  localPort: number,
  remotePort: number,
  pids: { member: string; pid: number | undefined }[],
): string | undefined {
  const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, '0')
  const loopback = '0100007F'
  const ends = `${loopback}:${hex(localPort)} ${loopback}:${hex(remotePort)} `
  const table = readFileSync('/proc/net/tcp', 'latin1')
  const at = table.indexOf(ends)
  // Behind the two addresses come state, queues, timer, retransmits, uid, timeout, inode.
  const inode = at < 0 ? undefined : table.slice(at, at + 200).split(/\s+/)[8]
  if (inode === undefined) return undefined
  const holds = (pid: number): boolean => {
    try {
      return readdirSync(`/proc/${pid}/fd`).some(
        (fd) => linkTo(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`,
      )
    } catch {
      return false
    }
  }
  return pids.find(({ pid }) => pid !== undefined && holds(pid))?.member
}

function linkTo(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    // It was closed meanwhile.
    return undefined
  }
}
