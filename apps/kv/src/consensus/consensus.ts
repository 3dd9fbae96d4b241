import { createRaft, type Recovered } from '@kiln/raft'
import { Fault } from '@kiln/service'
import type { Batch } from '../wal/records.ts'
import { saveSnapshot } from '../wal/snapshot-file.ts'
import { clearRefill, type Wal } from '../wal/wal.ts'
import { Driver } from './driver.ts'
import { cutDownTo } from './force-new-cluster.ts'
import { defaultLimits } from './limits.ts'
import { createRoster, decodeRoster, encodeRoster, membershipOf, type Roster } from './members.ts'
import { recoverStore } from './recover.ts'
import type { Consensus, ConsensusOptions } from './types.ts'

/** Starts a member: reads its disk, restores the state machine, and takes part. */
export async function startConsensus<Result>(options: ConsensusOptions<Result>): Promise<Consensus<Result>> {
  const limits = { ...defaultLimits, ...options.limits }
  let fail = (fault: Fault): void => options.onFatal(fault)
  const store = await recoverStore({
    disk: options.disk,
    clusterId: options.clusterId,
    memberId: options.self,
    segmentBytes: limits.segmentBytes,
    log: options.log,
    onFatal: (fault) => fail(fault),
  })
  let { recovered, origin } = store
  let roster = createRoster([])
  if (store.snapshot) {
    roster = decodeRoster(store.snapshot.context)
    await options.stateMachine.restore(store.snapshot.payload())
  } else if (store.isNew && !options.joining) {
    roster = createRoster(options.members)
    recovered = await beginCluster(options, roster)
    origin = recovered.snapshot
  }
  const { voters } = membershipOf(roster)
  const isAlone = (voters.length === 1 && voters[0] === options.self) || options.forceNewCluster === true
  if (store.refill && !options.acceptDamage && isAlone) {
    await store.wal.close()
    throw new Fault(
      'STORE_WAL_DAMAGED',
      'the last batch of the log is damaged and no other member can replace it',
      {
        remedy: 'restore a snapshot, or start once with the flag that accepts the loss of the last writes',
      },
    )
  }
  const cut = options.forceNewCluster && !store.isNew ? cutDownTo(options.self, recovered, roster) : undefined
  if (cut) {
    const removed = cut.removed.map((id) => id.toString(16))
    options.log.warn({ removed }, 'this member is made the only one of its cluster')
    recovered = {
      ...recovered,
      hardState: cut.hardState,
      entries: [...recovered.entries, ...cut.entries],
    }
  }
  const raft = createRaft(
    {
      id: options.self,
      electionTicks: options.electionTicks,
      uncommittedBytesMax: limits.uncommittedBytesMax,
      leaseMs: options.leaseReads === true ? leaseMsFor(options) : 0,
      mayVote: !store.refill || options.acceptDamage === true,
    },
    recovered,
  )
  if (store.refill && options.acceptDamage) await clearRefill(options.disk)
  const driver = new Driver(options, limits, raft, store.wal, roster)
  fail = (fault) => driver.fail(fault)
  if (origin || cut) {
    await appendFirst(store.wal, { origin, entries: cut?.entries ?? [], hardState: recovered.hardState })
  }
  driver.begin()
  return driver
}

/**
 * No closure in `startConsensus`, which shares its variables with the one that the log keeps: the snapshot that was read would stay
 * in memory as long as the member runs.
 */
const appendFirst = (wal: Wal, batch: Batch): Promise<void> =>
  new Promise((resolve) => wal.append(batch, resolve))

/**
 * Half of what an election takes at least, which begins up to a tick before its first whole one: timers of a member may run twice
 * as fast as the clock of the leader.
 */
function leaseMsFor({ electionTicks, tickMs }: { electionTicks: number; tickMs: number }): number {
  return ((electionTicks - 1) * tickMs) / 2
}

/**
 * The first members are not in the log but given to each of them, and kept in a first snapshot, the same on each. The log begins
 * after it, so that a member that is added later gets a snapshot first, which tells it who the others are.
 */
async function beginCluster(
  { disk, stateMachine }: Pick<ConsensusOptions<unknown>, 'disk' | 'stateMachine'>,
  roster: Roster,
): Promise<Recovered> {
  const meta = { index: 1, term: 1, membership: membershipOf(roster) }
  await saveSnapshot(disk, { meta, context: encodeRoster(roster) }, await stateMachine.snapshot())
  return { hardState: { term: meta.term, vote: 0n, commit: meta.index }, snapshot: meta, entries: [] }
}
