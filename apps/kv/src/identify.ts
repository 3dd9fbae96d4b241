import { type Clock, describeError, Fault, type Log } from '@kiln/service'
import { discoverCluster } from './consensus/discover.ts'
import { clusterId } from './consensus/identity.ts'
import type { PeerTls } from './consensus/peer-tls.ts'
import type { Member, MemberId } from './consensus/types.ts'
import { dataFormatVersion, type Identity, readIdentity, writeIdentity } from './data-dir.ts'
import type { Settings } from './settings/settings.ts'

const retryMs = 1000

export type IdentifyOptions = {
  settings: Settings
  log: Log
  clock: Clock
  stopping?: AbortSignal
  tls: PeerTls | undefined
  /** There is a log already: it knows the members better than anybody. */
  hasLog: boolean
}

/**
 * Who this member is: as its data directory says, else as the cluster it joins says, else as the flags say; and the
 * members to begin with while the log is empty. `isNew` says that it begins with an empty log.
 */
export async function identify(
  options: IdentifyOptions,
): Promise<{ identity: Identity; members: readonly Member[]; isNew: boolean }> {
  const { settings, log } = options
  const found = await readIdentity(settings.dataDir)
  if (found && (options.hasLog || !found.joining))
    return { identity: found, members: settings.initialCluster, isNew: !options.hasLog }
  const { members, ...who } =
    (found ?? settings).joining === true
      ? await askCluster(options)
      : { ...initialIdentity(settings), members: settings.initialCluster }
  const kept = who.joining ? [] : settings.initialCluster
  const identity = { formatVersion: dataFormatVersion, name: settings.name, ...who, members: kept }
  if (!found) await writeIdentity(settings.dataDir, identity)
  log.info({ joining: who.joining, memberId: who.memberId.toString(16) }, 'new member')
  return { identity, members, isNew: true }
}

function initialIdentity({ initialCluster, name }: Settings) {
  const self = initialCluster.find((member) => member.name === name)!
  return { clusterId: clusterId(initialCluster), memberId: self.id, joining: false }
}

/** An added member has an id that only the cluster knows: asks the others until one answers. */
async function askCluster(
  options: IdentifyOptions,
): Promise<{ clusterId: bigint; memberId: MemberId; joining: boolean; members: readonly Member[] }> {
  const { settings, log, clock, stopping, tls } = options
  const { initialCluster, advertisePeerUrls: ownPeerUrls } = settings
  while (!stopping?.aborted) {
    try {
      const { clusterId, self, members } = await discoverCluster({ ownPeerUrls, initialCluster, tls })
      return { clusterId, memberId: self, joining: true, members }
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== 'STORE_CLUSTER_UNREACHABLE') throw error
      log.info({ reason: describeError(error) }, 'waiting for a member of the cluster')
      await new Promise<void>((resume) => void clock.after(retryMs, resume))
    }
  }
  throw new Fault('STORE_STOPPED', 'stopped before a member of the cluster answered')
}
