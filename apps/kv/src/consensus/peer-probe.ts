import type { Clock } from '@kiln/service'
import { dial, type PeerTls } from './peer-tls.ts'
import { encodeHello, packFrames, peerFormatVersion } from './peer-wire.ts'
import type { Member, MemberId } from './types.ts'

const intervalMs = 30_000
const answerTimeoutMs = 5_000

export type PeerProbeOptions = {
  self: MemberId
  members: () => readonly Member[]
  tls: PeerTls | undefined
  clock: Clock
  observe: (peer: MemberId, seconds: number) => void
}

/** Measures now and then how long each other member takes to answer on an open connection. */
export function startPeerProbe(options: PeerProbeOptions): () => void {
  const { self, members, tls, clock, observe } = options
  let cancel = (): void => undefined
  let isStopped = false
  const round = async (): Promise<void> => {
    for (const member of members()) {
      const url = member.peerUrls[0]
      if (isStopped || member.id === self || !url) continue
      const seconds = await roundTrip(url, tls).catch(() => undefined)
      if (seconds !== undefined) observe(member.id, seconds)
    }
  }
  const schedule = (delayMs: number): void => {
    if (isStopped) return
    cancel = clock.after(delayMs, () => void round().finally(() => schedule(intervalMs)))
  }
  schedule(1_000)
  return () => {
    isStopped = true
    cancel()
  }
}

/** Seconds from a hello to its answer; the time to connect does not count. */
function roundTrip(url: string, tls: PeerTls | undefined): Promise<number> {
  return new Promise((resolve, reject) => {
    let sentAt = 0
    const socket = dial(url, tls, () => {
      const none = { clusterId: 0n, from: 0n, to: 0n, urls: [] }
      socket.write(packFrames([encodeHello({ version: peerFormatVersion, purpose: 'describe', ...none })]))
      sentAt = performance.now()
    })
    socket.setTimeout(answerTimeoutMs, () => socket.destroy(new Error(`${url} did not answer`)))
    socket.once('data', () => {
      resolve((performance.now() - sentAt) / 1000)
      socket.destroy()
    })
    socket.once('error', reject)
    socket.once('close', () => reject(new Error(`${url} closed the connection`)))
  })
}
