import { createHash } from 'node:crypto'
import { Fault } from '@kiln/service'
import type { Member, MemberId } from './types.ts'

/**
 * Ids as etcd derives them, so that every member of an initial cluster computes the same without talking: a member's
 * from its sorted peer URLs and the cluster's token (and the time, for one added later), the cluster's from its members' ids.
 * Both are the first eight bytes of a SHA-1, big endian.
 */
export function memberId(peerUrls: readonly string[], token: string, addedAtSeconds?: number): MemberId {
  const hash = createHash('sha1')
    .update([...peerUrls].sort().join(''))
    .update(token)
  if (addedAtSeconds !== undefined) hash.update(String(addedAtSeconds))
  return hash.digest().readBigUInt64BE(0)
}

export function clusterId(members: readonly { id: MemberId }[]): bigint {
  const bytes = Buffer.alloc(8 * members.length)
  const ids = members.map((member) => member.id).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
  ids.forEach((id, at) => {
    bytes.writeBigUInt64BE(id, at * 8)
  })
  return createHash('sha1').update(bytes).digest().readBigUInt64BE(0)
}

/** Reads `--initial-cluster`: `name=url,name=url,...`; a name may come more than once, with one URL each time. */
export function parseInitialCluster(text: string, token: string): Member[] {
  const urls = new Map<string, string[]>()
  for (const part of text.split(',')) {
    const at = part.indexOf('=')
    const name = part.slice(0, at).trim()
    const url = part.slice(at + 1).trim()
    if (at <= 0 || !isPeerUrl(url)) {
      throw new Fault('STORE_INITIAL_CLUSTER_INVALID', `initial cluster has "${part}", which is not name=url`)
    }
    urls.set(name, [...(urls.get(name) ?? []), url])
  }
  const members = [...urls].map(([name, peerUrls]) => ({
    id: memberId(peerUrls, token),
    name,
    peerUrls,
    clientUrls: [],
    learner: false,
  }))
  if (new Set(members.map((member) => member.id)).size !== members.length) {
    throw new Fault(
      'STORE_INITIAL_CLUSTER_INVALID',
      'initial cluster has two members with the same peer URLs',
    )
  }
  return members
}

/** Scheme, host and port, nothing else. */
export function isPeerUrl(text: string): boolean {
  const url = URL.parse(text)
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) return false
  return url.hostname !== '' && (url.pathname === '/' || url.pathname === '') && url.search === ''
}
