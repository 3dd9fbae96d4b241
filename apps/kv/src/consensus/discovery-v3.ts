import type { EtcdClient, StoreEntry } from '@kiln/etcd-api'
import { Fault, type Log } from '@kiln/service'
import { parseInitialCluster } from './identity.ts'
import type { Member, MemberId } from './types.ts'

export type V3Discovery = {
  /** Name of the new cluster on the one that is asked; ids are derived from it. */
  token: string
  self: MemberId
  name: string
  advertisePeerUrls: readonly string[]
}

/** Where etcd's discovery has its keys (server/etcdserver/api/v3discovery). */
const registry = '/_etcd/registry'

/**
 * Finds the other first members through a running cluster: everyone writes its name and URLs below a token and waits until as many
 * are there as the key of the size says (kv.md section 10). Whoever comes later than that is refused.
 */
export async function discoverByToken(
  client: EtcdClient,
  discovery: V3Discovery,
  { log, stopping }: { log: Log; stopping?: AbortSignal | undefined },
): Promise<Member[]> {
  const { token, self, name, advertisePeerUrls } = discovery
  const size = await readSize(client, token)
  const prefix = `${registry}/${token}/members/`
  const own = `${prefix}${self.toString(16)}`
  if (!(await client.get(own))) {
    const text = advertisePeerUrls.map((url) => `${name}=${url}`).join(',')
    await client.put(own, text)
  }
  for (;;) {
    const { entries, revision } = await client.getPrefix(prefix)
    const first = [...entries].sort(byCreation).slice(0, size)
    if (!first.some(({ key }) => key === own) && first.length === size) {
      throw new Fault('STORE_DISCOVERY_FAILED', `discovery token ${token} has its ${size} members already`, {
        remedy: 'add this member to the cluster and start it with --initial-cluster-state=existing',
      })
    }
    if (first.length === size) return parseInitialCluster(first.map(({ text }) => text).join(','), token)
    log.info({ token, there: first.length, size }, 'waiting for the other members')
    await changeOf(client, prefix, revision + 1n, stopping)
  }
}

async function readSize(client: EtcdClient, token: string): Promise<number> {
  const key = `${registry}/${token}/_config/size`
  const size = Number((await client.get(key))?.text)
  if (Number.isInteger(size) && size > 0) return size
  throw new Fault('STORE_DISCOVERY_FAILED', `key ${key} of the discovery cluster has no size`, {
    remedy: `etcdctl put ${key} 3`,
  })
}

async function changeOf(
  client: EtcdClient,
  prefix: string,
  startRevision: bigint,
  stopping: AbortSignal | undefined,
): Promise<void> {
  const watch = client.watch(prefix, { startRevision, ...(stopping ? { signal: stopping } : {}) })
  try {
    for await (const _outcome of watch) return
  } finally {
    watch.close()
  }
  throw new Fault('STORE_STOPPED', 'stopped before the other members were there')
}

const byCreation = (a: StoreEntry, b: StoreEntry): number => Number(a.createRevision - b.createRevision)
