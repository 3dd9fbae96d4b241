import type { Bytes } from './bytes.ts'
import type { EtcdClient } from './client.ts'
import type { StoreEntry } from './entry.ts'

const pageKeysDefault = 200

/** All entries below `prefix` as of one revision, in pages that a slow member answers in time. */
export async function scanPrefix(
  store: Pick<EtcdClient, 'getPrefix'>,
  prefix: Bytes,
  options: { pageKeys?: number } = {},
): Promise<StoreEntry[]> {
  const limit = options.pageKeys ?? pageKeysDefault
  const first = await store.getPrefix(prefix, { limit })
  const entries = first.entries
  for (let page = first; page.more; ) {
    const from = Buffer.concat([entries.at(-1)!.keyBytes, Buffer.alloc(1)])
    page = await store.getPrefix(prefix, { limit, from, revision: first.revision })
    entries.push(...page.entries)
  }
  return entries
}
