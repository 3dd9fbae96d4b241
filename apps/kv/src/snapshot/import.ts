import { mkdtemp, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { EtcdClient } from '@kiln/etcd-api'
import { Fault } from '@kiln/service'
import { parseInitialCluster } from '../consensus/identity.ts'
import { StoreState } from '../state/state-machine.ts'
import { readContent } from './content.ts'
import { Mirror } from './mirror.ts'
import { encodeState, ownMember, refuseUsed, writeDataDir } from './restore.ts'
import { saveSnapshotTo } from './save.ts'
import { openSnapshotFile } from './snapshot-file.ts'

export type ImportOptions = {
  source: EtcdClient
  dataDir: string
  name: string
  initialCluster: string
  token: string
  advertisePeerUrls: string[]
  /** Goes on with the source's changes until `stopping`. */
  follow: boolean
  stopping: AbortSignal
  note(line: string): void
}

export type Imported = { revision: number; leases: number; hash: number }

/**
 * Mirrors a running cluster into a new data directory: its snapshot into memory, then its changes revision by revision, at the end
 * its leases, and a comparison of hashes. The directory is written last: what is there is a whole and compared copy.
 */
export async function importCluster(options: ImportOptions): Promise<Imported> {
  const { source, dataDir, note } = options
  const members = parseInitialCluster(options.initialCluster, options.token)
  const member = ownMember(members, options)
  await refuseUsed(dataDir)
  const state = await loadSnapshot(source, dataDir)
  const mirror = new Mirror(state, source)
  note(`snapshot taken at revision ${state.store.revision}`)
  if (options.follow) {
    await followUntil(mirror, source, options.stopping)
    note(`ending at revision ${state.store.revision} or later`)
  }
  await catchUp(mirror, source)
  await mirror.takeLeases()
  const hash = await mirror.verify()
  await writeDataDir({ dataDir, members, member, state: await state.snapshot() })
  return { revision: state.store.revision, leases: state.store.leases.size, hash }
}

async function loadSnapshot(source: EtcdClient, dataDir: string): Promise<StoreState> {
  const work = await mkdtemp(join(dirname(dataDir), '.kiln-kv-import-'))
  try {
    const path = join(work, 'snapshot.db')
    await saveSnapshotTo(source, path)
    const file = await openSnapshotFile(path, { skipHashCheck: true })
    try {
      const content = await readContent(file)
      const state = new StoreState()
      // Alarms are about the source's members and disks.
      await state.restore(encodeState({ ...content, alarms: [] }))
      return state
    } finally {
      await file.close()
    }
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

async function followUntil(mirror: Mirror, source: EtcdClient, stopping: AbortSignal): Promise<void> {
  if (stopping.aborted) return
  const watch = source.watch('', { startRevision: BigInt(mirror.state.store.revision + 1) })
  stopping.addEventListener('abort', () => watch.close(), { once: true })
  for await (const outcome of watch) {
    if (outcome.kind === 'compacted') throw compacted(outcome.compactRevision)
    await mirror.apply(outcome.events)
  }
}

/** Up to the revision that the source has now. */
async function catchUp(mirror: Mirror, source: EtcdClient): Promise<void> {
  const { store } = mirror.state
  const { revision } = await source.getPrefix('', { limit: 1, keysOnly: true })
  if (store.revision >= Number(revision)) return
  const watch = source.watch('', { startRevision: BigInt(store.revision + 1) })
  for await (const outcome of watch) {
    if (outcome.kind === 'compacted') throw compacted(outcome.compactRevision)
    await mirror.apply(outcome.events)
    if (store.revision >= Number(revision)) break
  }
  watch.close()
}

const compacted = (revision: bigint): Fault =>
  new Fault('STORE_MIRROR_BEHIND', `the source was compacted at ${revision}, beyond what was mirrored`, {
    remedy: 'run the import again',
  })
