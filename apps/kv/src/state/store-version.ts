import { Fault } from '@kiln/service'

/**
 * The version of the store is what may stand in log, snapshots and data directories of a cluster. A program reads all
 * versions up to its own and writes the one that the cluster has, so that a machine which falls back to the image before
 * finds nothing there that it cannot read. An entry of the log raises it, once every member runs a program that knows the
 * next one (`store-upgrade.ts`).
 *
 * 1: everything up to users and roles. 2: nothing but the entry itself. 3: the entry that restores a range.
 * 4: entries with the time, and what they leave in snapshots.
 */
export const storeVersion = 4
/** From this one on the log may have an entry that restores a range. */
export const restoreStoreVersion = 3
/** From this one on the log may have entries with the time. */
export const timeStoreVersion = 4
export const firstStoreVersion = 1

/** A member of an older program must stop: going on would make it differ from the others. */
export function newerStore(version: number): Fault {
  return new Fault(
    'STORE_FORMAT_UNKNOWN',
    `the cluster has store version ${version}, this program ${storeVersion}`,
    {
      remedy: 'a newer kiln-kv raised it: run that version',
    },
  )
}
