import { type Clock, Fault, type Log } from '@kiln/service'
import { encodeCommand } from '../state/command.ts'
import type { Consensus, MemberId } from './types.ts'

/** What a member tells the others about its program; see `state/store-version.ts`. */
export type Announcement = {
  storeVersion: number
  /** It began this run with an empty disk: no older program has data there to fall back to. */
  isNew: boolean
  /** Whether it serves reads alone as leader; a program that does not say so may do either. */
  leaseReads?: boolean
}

/** What a member is taken for that announces nothing: the first program did not. */
export const unannounced: Announcement = { storeVersion: 1, isNew: false }

export function encodeAnnouncement(announcement: Announcement): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(announcement))
}

export function decodeAnnouncement(bytes: Uint8Array): Announcement {
  if (bytes.length === 0) return unannounced
  const { storeVersion, isNew, leaseReads } = JSON.parse(
    new TextDecoder().decode(bytes),
  ) as Partial<Announcement>
  if (!Number.isSafeInteger(storeVersion) || storeVersion! < 1)
    throw new Error('a peer has no good store version')
  return {
    storeVersion: storeVersion!,
    isNew: isNew === true,
    ...(typeof leaseReads === 'boolean' ? { leaseReads } : {}),
  }
}

/**
 * Lease reads are for all members or none: one without them would elect another leader while one with them still answers alone. A member
 * that begins with another setting than those it finds does not begin.
 */
export function refuseMixedReads(leaseReads: boolean, peers: ReadonlyMap<MemberId, Announcement>): void {
  for (const [id, peer] of peers) {
    if (peer.leaseReads === undefined || peer.leaseReads === leaseReads) continue
    const has = peer.leaseReads ? 'has' : 'has not'
    throw new Fault('STORE_LEASE_READS_MIXED', `member ${id.toString(16)} ${has} --lease-reads`, {
      remedy: 'set it on all members or none; to change it, stop them all first',
    })
  }
}

export type StoreUpgradePorts = {
  own: Announcement
  state: { readonly version: number }
  consensus: Pick<Consensus<unknown>, 'id' | 'isLeader' | 'members' | 'propose'>
  /** Of the members that are connected now. */
  announcements(): ReadonlyMap<MemberId, Announcement>
  clock: Clock
  log: Log
  /** How long every member must have run the new program: longer than a machine takes to fall back by itself. */
  settleMs: number
}

const intervalMs = 500

/**
 * Raises the version of the store as leader: when all members, learners too, have been connected with a program that knows
 * it for `settleMs` without a break, at once in a cluster that is new. Returns the function that ends it.
 */
export function startStoreUpgrade(ports: StoreUpgradePorts): () => void {
  const { own, state, consensus, clock, log, settleMs } = ports
  let readySince: number | undefined
  let isStopped = false
  let cancel = (): void => undefined
  const others = (): Announcement[] =>
    consensus
      .members()
      .filter(({ id }) => id !== consensus.id())
      .map(({ id }) => ports.announcements().get(id) ?? unannounced)
  const check = async (): Promise<void> => {
    const announced = others()
    if (!consensus.isLeader() || announced.some(({ storeVersion }) => storeVersion < own.storeVersion)) {
      readySince = undefined
      return
    }
    readySince ??= clock.now()
    const isNew = own.isNew && announced.every((each) => each.isNew)
    if (clock.now() - readySince < (isNew ? 0 : settleMs)) return
    await consensus.propose(encodeCommand({ kind: 'raise-version', version: own.storeVersion, isNew }))
    log.info({ storeVersion: own.storeVersion }, 'the version of the store was raised')
  }
  const plan = (): void => {
    // It never sinks again.
    if (isStopped || state.version >= own.storeVersion) return
    cancel = clock.after(intervalMs, () => {
      check()
        .catch((error: unknown) => log.debug({ error }, 'the version of the store could not be raised'))
        .finally(plan)
    })
  }
  plan()
  return () => {
    isStopped = true
    cancel()
  }
}
