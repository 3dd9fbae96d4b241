import { Fault } from '@kiln/service'
import { dial, type PeerTls } from './peer-tls.ts'
import { decodeAnswer, encodeHello, FrameReader, packFrames, peerFormatVersion } from './peer-wire.ts'
import type { Member, MemberId } from './types.ts'

const answerTimeoutMs = 5_000

/**
 * Asks a running cluster who we are: a member that was added later has an id that cannot be computed from its URLs. The
 * members of `initialCluster` other than ourselves are asked in turn.
 */
export async function discoverCluster(options: {
  ownPeerUrls: readonly string[]
  initialCluster: readonly Member[]
  tls?: PeerTls | undefined
}): Promise<{ clusterId: bigint; self: MemberId; members: Member[] }> {
  const own = sorted(options.ownPeerUrls)
  const others = options.initialCluster.filter((member) => sorted(member.peerUrls) !== own)
  let cause: unknown
  for (const url of others.flatMap((member) => member.peerUrls)) {
    try {
      const { clusterId, members } = await ask(url, options.tls)
      const self = members.find((member) => sorted(member.peerUrls) === own)
      if (self === undefined) {
        throw new Fault(
          'STORE_JOIN_REFUSED',
          `the cluster at ${url} has no member with our peer URLs ${own}`,
          {
            remedy: 'add this member to the cluster first',
          },
        )
      }
      return { clusterId, self: self.id, members }
    } catch (error) {
      if (error instanceof Fault && error.code === 'STORE_JOIN_REFUSED') throw error
      cause = error
    }
  }
  throw new Fault('STORE_CLUSTER_UNREACHABLE', 'no member of the cluster to join answers', { cause })
}

function ask(url: string, tls: PeerTls | undefined): Promise<{ clusterId: bigint; members: Member[] }> {
  return new Promise((resolve, reject) => {
    const reader = new FrameReader()
    const socket = dial(url, tls, () => {
      const hello = {
        version: peerFormatVersion,
        purpose: 'describe' as const,
        clusterId: 0n,
        urls: [],
        from: 0n,
        to: 0n,
      }
      socket.write(packFrames([encodeHello(hello)]))
    })
    socket.setTimeout(answerTimeoutMs, () => socket.destroy(new Error(`${url} did not answer`)))
    socket.on('error', reject)
    socket.on('close', () => reject(new Error(`${url} closed the connection`)))
    socket.on('data', (chunk) => {
      try {
        const frame = reader.push(chunk)[0]
        if (frame === undefined) return
        const { code, body } = decodeAnswer(frame)
        if (code !== '') throw new Fault(code, `${url} does not describe its cluster`)
        resolve(parse(body))
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)))
      }
      socket.destroy()
    })
  })
}

function parse(body: Uint8Array): { clusterId: bigint; members: Member[] } {
  const { clusterId, members } = JSON.parse(new TextDecoder().decode(body)) as {
    clusterId: string
    members: (Omit<Member, 'id'> & { id: string })[]
  }
  return {
    clusterId: BigInt(`0x${clusterId}`),
    members: members.map((member) => ({ ...member, id: BigInt(`0x${member.id}`) })),
  }
}

const sorted = (urls: readonly string[]): string => [...urls].sort().join(',')
