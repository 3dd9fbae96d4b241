import type { SrvRecord } from 'node:dns'
import { Fault } from '@kiln/service'
import { parseInitialCluster } from './identity.ts'
import type { Member } from './types.ts'

/** What is asked of the domain name system. */
export type NameService = {
  srv(name: string): Promise<Pick<SrvRecord, 'name' | 'port'>[]>
  /** Addresses of a host; empty if it has none. */
  addresses(host: string): Promise<string[]>
}

export type SrvDiscovery = {
  domain: string
  suffix: string
  name: string
  advertisePeerUrls: readonly string[]
  token: string
}

/**
 * The first members by the SRV records `_etcd-server-ssl._tcp` and `_etcd-server._tcp` of a domain (kv.md section 10). The record with
 * our own address gets our name, the others are numbered.
 */
export async function discoverBySrv(options: SrvDiscovery, dns: NameService): Promise<Member[]> {
  const { domain, suffix, name, advertisePeerUrls, token } = options
  const problems: unknown[] = []
  const found: string[] = []
  let number = 0
  for (const [service, scheme] of [
    ['etcd-server-ssl', 'https'],
    ['etcd-server', 'http'],
  ]) {
    const query = `_${service}${suffix ? `-${suffix}` : ''}._tcp.${domain}`
    const records = await dns.srv(query).catch((error: unknown) => {
      problems.push(error)
      return []
    })
    for (const { name: target, port } of records) {
      const url = `${scheme}://${target.replace(/\.$/, '')}:${port}`
      const own = await ownUrl(url, advertisePeerUrls, dns)
      found.push(own ? `${name}=${own}` : `${number++}=${url}`)
    }
  }
  if (!found.some((each) => each.startsWith(`${name}=`))) {
    throw new Fault('STORE_DISCOVERY_FAILED', `no SRV record of ${domain} names this member`, {
      cause: problems[0],
      remedy: 'a record must have the host and port of --initial-advertise-peer-urls',
    })
  }
  return parseInitialCluster(found.join(','), token)
}

/** The URL of ours that a record means: the same text, or another name of the same address and port. */
async function ownUrl(
  url: string,
  advertised: readonly string[],
  dns: NameService,
): Promise<string | undefined> {
  const { protocol, hostname, port } = new URL(url)
  for (const own of advertised) {
    const mine = new URL(own)
    if (mine.protocol !== protocol || mine.port !== port) continue
    if (mine.hostname === hostname) return own
    const [theirs, ours] = await Promise.all([dns.addresses(hostname), dns.addresses(mine.hostname)])
    if (theirs.some((address) => ours.includes(address))) return own
  }
  return undefined
}
