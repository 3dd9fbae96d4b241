import type { EtcdClient } from '@kiln/etcd-api'
import { storeKeys } from '@kiln/schemas'
import type { Log } from '@kiln/service'
import { followPrefix } from '../follow-prefix.ts'
import type { ServiceDirectory } from './service-directory.ts'
import { readServiceEntry, readServiceKey } from './service-entries.ts'

/** Keeps a directory at what the store knows of services. */
export function followServices(input: {
  store: Pick<EtcdClient, 'getPrefix' | 'watch'>
  directory: ServiceDirectory
  log: Log
  signal: AbortSignal
}): Promise<void> {
  const { directory, log } = input
  const read = (key: string, text: string): ReturnType<typeof readServiceEntry> => {
    const instance = readServiceEntry(key, text)
    if (!instance) log.warn({ key: key.slice(0, 300) }, 'an entry of the store is no instance of a service')
    return instance
  }
  return followPrefix({
    ...input,
    prefix: storeKeys.services,
    reset: (entries) => directory.replace(entries.flatMap(({ key, text }) => read(key, text) ?? [])),
    changed: (changes) => {
      for (const { key, text } of changes) {
        const instance = text === undefined ? undefined : read(key, text)
        if (instance) {
          directory.put(instance)
          continue
        }
        const gone = readServiceKey(key)
        if (gone) directory.delete(gone)
      }
    },
  })
}
