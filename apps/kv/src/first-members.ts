import { lookup, resolveSrv } from 'node:dns/promises'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import type { Log } from '@kiln/service'
import { discoverBySrv } from './consensus/discovery-srv.ts'
import { discoverByToken } from './consensus/discovery-v3.ts'
import { memberId } from './consensus/identity.ts'
import type { Member } from './consensus/types.ts'
import type { DiscoveryV3, Settings } from './settings/settings.ts'

type Ports = { log: Log; stopping?: AbortSignal | undefined }

/** Fills in `initialCluster` where it is not given but to be found out. A member that has a log is asked nothing. */
export async function firstMembers(settings: Settings, ports: Ports): Promise<Settings> {
  const { discoverySrv, discoveryV3, name, advertisePeerUrls, token } = settings
  if ((!discoverySrv && !discoveryV3) || hasLog(settings.dataDir)) return settings
  const initialCluster = discoveryV3
    ? await askCluster(settings, discoveryV3, ports)
    : await discoverBySrv(
        { ...discoverySrv!, name, advertisePeerUrls, token },
        { srv: resolveSrv, addresses },
      )
  ports.log.info({ members: initialCluster.map((member) => member.name) }, 'first members found')
  return { ...settings, initialCluster }
}

async function askCluster(settings: Settings, discovery: DiscoveryV3, ports: Ports): Promise<Member[]> {
  const { name, advertisePeerUrls } = settings
  const { token, endpoints, caFile, certFile, keyFile, timeoutMs } = discovery
  const tls = caFile && {
    ca: readFileSync(caFile),
    ...(certFile ? { cert: readFileSync(certFile), key: readFileSync(keyFile) } : {}),
  }
  const client = new EtcdClient({ endpoints, timeoutMs, ...(tls ? { tls } : {}) })
  try {
    const self = memberId(advertisePeerUrls, token)
    return await discoverByToken(client, { token, self, name, advertisePeerUrls }, ports)
  } finally {
    client.close()
  }
}

const addresses = (host: string): Promise<string[]> =>
  lookup(host, { all: true }).then(
    (found) => found.map(({ address }) => address),
    () => [],
  )

function hasLog(dataDir: string): boolean {
  try {
    return readdirSync(join(dataDir, 'log')).length > 0
  } catch {
    return false
  }
}
