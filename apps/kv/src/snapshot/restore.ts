import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { SnapshotEncoder } from '@kiln/mvcc'
import { Fault, syncDirectory } from '@kiln/service'
import { clusterId, parseInitialCluster } from '../consensus/identity.ts'
import { createRoster, encodeRoster, membershipOf } from '../consensus/members.ts'
import type { Member } from '../consensus/types.ts'
import { writeIdentity } from '../data-dir.ts'
import { encodeStateHead } from '../state/state-head.ts'
import { nodeDisk } from '../wal/node-disk.ts'
import { saveSnapshot } from '../wal/snapshot-file.ts'
import { readContent, type SnapshotContent } from './content.ts'
import { openSnapshotFile } from './snapshot-file.ts'

export type RestoreOptions = {
  path: string
  dataDir: string
  name: string
  initialCluster: string
  token: string
  advertisePeerUrls: string[]
  skipHashCheck: boolean
  /** Added to the revision, so that no client sees one again that it has seen before. */
  bumpRevision: number
  /** Everything up to the revision counts as compacted: watchers from before learn that they missed something. */
  markCompacted: boolean
}

export type Restored = {
  clusterId: bigint
  member: Member
  revision: number
  versions: number
  leases: number
}

/** Where the log of a restored cluster begins: the same for all of its members. */
const origin = { index: 1, term: 1 }

/**
 * Makes the data directory of one member of a new cluster from a snapshot, ours or etcd's (kv.md section 7, Restore). It is built
 * beside its place and renamed, so that it is there as a whole or not at all.
 */
export async function restoreSnapshotFile(options: RestoreOptions): Promise<Restored> {
  const { dataDir } = options
  const members = parseInitialCluster(options.initialCluster, options.token)
  const member = ownMember(members, options)
  if (options.bumpRevision > 0 !== options.markCompacted) {
    throw new Fault('USAGE', '--bump-revision and --mark-compacted need each other')
  }
  await refuseUsed(dataDir)
  const file = await openSnapshotFile(options.path, options)
  try {
    const found = await readContent(file)
    const revision = found.revision + options.bumpRevision
    const content = options.markCompacted ? await compactAll(found, revision) : found
    const state = encodeState(content)
    await writeDataDir({ dataDir, members, member, state })
    return {
      clusterId: clusterId(members),
      member,
      revision,
      versions: content.count,
      leases: content.leases.length,
    }
  } finally {
    await file.close()
  }
}

/** The content as a compaction at `revision`, beyond all versions, leaves it. Holds the live keys in memory. */
async function compactAll(content: SnapshotContent, revision: number): Promise<SnapshotContent> {
  const live = new Map<string, { revision: number; sub: number }>()
  const nameOf = (key: Uint8Array): string => Buffer.from(key).toString('latin1')
  for await (const { key, version, revision: at, sub } of content.versions()) {
    if (version > 0) live.set(nameOf(key), { revision: at, sub })
    else live.delete(nameOf(key))
  }
  return {
    ...content,
    revision,
    compactRevision: revision,
    count: live.size,
    versions: async function* () {
      for await (const version of content.versions()) {
        const last = live.get(nameOf(version.key))
        if (last?.revision === version.revision && last.sub === version.sub) yield version
      }
    },
  }
}

/** Writes the data directory of a member whose cluster begins with this state. */
export async function writeDataDir(options: {
  dataDir: string
  members: readonly Member[]
  member: Member
  state: AsyncIterable<Uint8Array>
}): Promise<void> {
  const { dataDir, member, state } = options
  const members = [...options.members]
  const building = `${dataDir}.restore-${process.pid}`
  try {
    await mkdir(building, { mode: 0o700 }).catch((cause: unknown) => {
      throw new Fault('STORE_DATA_DIR', `cannot make the data directory ${dataDir}`, { cause })
    })
    const roster = createRoster(members)
    const meta = { ...origin, membership: membershipOf(roster) }
    await saveSnapshot(await nodeDisk(join(building, 'log')), { meta, context: encodeRoster(roster) }, state)
    const { id: memberId, name } = member
    await writeIdentity(building, { clusterId: clusterId(members), memberId, name, joining: false, members })
    await rename(building, dataDir)
    await syncDirectory(dirname(dataDir))
  } finally {
    await rm(building, { recursive: true, force: true })
  }
}

/** The member of the initial cluster that the directory is for. */
export function ownMember(
  members: readonly Member[],
  options: Pick<RestoreOptions, 'name' | 'advertisePeerUrls'>,
): Member {
  const own = members.find((member) => member.name === options.name)
  if (!own) {
    throw new Fault(
      'STORE_INITIAL_CLUSTER_INVALID',
      `couldn't find local name "${options.name}" in the initial cluster`,
    )
  }
  if ([...own.peerUrls].sort().join() !== [...options.advertisePeerUrls].sort().join()) {
    throw new Fault(
      'STORE_INITIAL_CLUSTER_INVALID',
      `the initial cluster has ${own.peerUrls.join()} for ${own.name} but --initial-advertise-peer-urls is ${options.advertisePeerUrls.join()}`,
    )
  }
  return own
}

/** A directory that holds anything is never written to. */
export async function refuseUsed(dataDir: string): Promise<void> {
  const found = await readdir(dataDir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new Fault('STORE_DATA_DIR', `cannot read ${dataDir}`, { cause: error })
  })
  if (found.length > 0) {
    throw new Fault('STORE_DATA_DIR_USED', `data-dir "${dataDir}" not empty or could not be read`, {
      remedy: 'restore into a directory that does not exist yet',
    })
  }
}

/** The state machine's snapshot of such content. */
export async function* encodeState(content: SnapshotContent): AsyncGenerator<Uint8Array, void> {
  yield encodeStateHead({ alarms: content.alarms, auth: content.auth })
  const encoder = new SnapshotEncoder(content)
  yield encoder.head
  for await (const version of content.versions()) {
    const piece = encoder.add(version)
    if (piece) yield piece
  }
  yield encoder.end()
}
