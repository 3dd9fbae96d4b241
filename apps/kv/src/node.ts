import { join } from 'node:path'
import { watchCertificate } from '@kiln/pki/certificate-watch'
import { type Clock, describeError, Fault, type Log, version } from '@kiln/service'
import type { ServiceContext } from './api/context.ts'
import { propose } from './api/context.ts'
import { encodeCompact } from './api/requests.ts'
import { createWatchService } from './api/watch-service.ts'
import { AuthKeeper } from './auth/auth-keeper.ts'
import { startAutoCompaction } from './auto-compaction.ts'
import { startAutoDisarm } from './auto-disarm.ts'
import { startConsensus } from './consensus/consensus.ts'
import { startPeerProbe } from './consensus/peer-probe.ts'
import type { PeerTls } from './consensus/peer-tls.ts'
import { refuseMixedReads, startStoreUpgrade } from './consensus/store-upgrade.ts'
import { startTcpTransport } from './consensus/tcp-transport.ts'
import { startTimeMarking } from './consensus/time-marking.ts'
import type { Consensus, Member } from './consensus/types.ts'
import { lockDataDir } from './data-dir.ts'
import { firstMembers } from './first-members.ts'
import { Measures, measuredDisk, measuredStateMachine } from './http/measures.ts'
import { SlowCalls } from './http/slow-calls.ts'
import { identify } from './identify.ts'
import { LeaseKeeper } from './leases/lease-keeper.ts'
import { withOwnCertificates } from './self-signed.ts'
import { serveClients } from './serve.ts'
import type { Settings } from './settings/settings.ts'
import { CorruptCheck } from './state/corrupt-check.ts'
import { Reclaimer } from './state/reclaimer.ts'
import { type Applied, StoreState } from './state/state-machine.ts'
import { storeVersion } from './state/store-version.ts'
import { openScratchFile } from './values/scratch-file.ts'
import { ValueKeeper } from './values/value-keeper.ts'
import { nodeDisk } from './wal/node-disk.ts'

const publishRetryMs = 500
/** What one try to hand over leadership may hold up a stop. */
const handOverMs = 2_000

export type NodeOptions = {
  settings: Settings
  log: Log
  clock: Clock
  random: () => number
  stopping?: AbortSignal
  onFatal: (fault: Fault) => void
}

export type RunningNode = {
  consensus: Consensus<Applied>
  clients: { host: string; port: number }[]
  /** Resolves when the cluster knows this member's name and client URLs: from then on it serves. */
  published: Promise<void>
  stop(): Promise<void>
}

/** Starts a member: identity, state, peers, consensus, clients, in this order; stops in the reverse one. */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  const { log, clock } = options
  const unlock = await lockDataDir(options.settings.dataDir)
  const settings = await firstMembers(await withOwnCertificates(options.settings, new Date()), options)
  const peerTls: PeerTls | undefined = settings.peerTls && {
    certFile: settings.peerTls.certFile,
    keyFile: settings.peerTls.keyFile,
    ...(settings.peerTls.caFile ? { caFile: settings.peerTls.caFile } : {}),
    ...(settings.peerTls.crlFile ? { crlFile: settings.peerTls.crlFile } : {}),
    clientCertAuth: settings.peerTls.clientAuth,
    protocol: settings.tlsProtocol,
    ...(settings.peerTls.outgoing ? { outgoing: settings.peerTls.outgoing } : {}),
    allowed: settings.peerTls,
    unverified: settings.peerTls.selfSigned !== undefined,
  }
  const measures = new Measures()
  const disk = measuredDisk(await nodeDisk(join(settings.dataDir, 'log')), measures)
  const { identity, members, isNew } = await identify({
    ...options,
    settings,
    tls: peerTls,
    hasLog: (await disk.list()).length > 0,
  })
  const state = new StoreState()
  const keeper = await startKeeper(state, settings, options)
  const leases = new LeaseKeeper({ state, clock, log, electionMs: settings.electionMs })
  const corruption = new CorruptCheck({ state, consensus: () => consensus, clock, log })
  let known: () => readonly Member[] = () => []
  const transport = await startTcpTransport({
    clusterId: identity.clusterId,
    self: identity.memberId,
    listen: settings.listenPeer,
    advertise: settings.advertisePeerUrls,
    tls: peerTls,
    clock,
    random: options.random,
    log,
    describe: () => known(),
    announce: () => ({ storeVersion, isNew, leaseReads: settings.leaseReads }),
  })
  const consensus = await startConsensus<Applied>({
    clusterId: identity.clusterId,
    self: identity.memberId,
    members,
    joining: identity.joining,
    disk,
    stateMachine: measuredStateMachine(state, measures, (seconds, entries) => {
      if (seconds * 1000 > settings.slowApplyMs)
        log.warn({ entries, durationMs: Math.round(seconds * 1000) }, 'applying took long')
    }),
    transport,
    clock,
    random: options.random,
    tickMs: settings.heartbeatMs,
    electionTicks: Math.max(5, Math.round(settings.electionMs / settings.heartbeatMs)),
    log,
    onRequest: (body) => (corruption.isQuestion(body) ? corruption.onRequest(body) : leases.onRequest(body)),
    onFatal: options.onFatal,
    limits: {
      snapshotEntries: settings.snapshotEntries,
      snapshotFiles: settings.snapshotFiles,
      keptEntries: settings.keptEntries,
      proposalBytesMax: settings.requestBytesMax + 64 * 1024,
    },
    acceptDamage: settings.acceptDamage,
    forceNewCluster: settings.forceNewCluster,
    leaseReads: settings.leaseReads,
    slow: {
      ms: SlowCalls.noteMs(settings.slowRequestMs),
      report: (call, times) => measures.slowCalls.noteProposal(call, times),
    },
  }).catch(async (error: unknown) => {
    await transport.stop()
    await keeper?.stop()
    throw error
  })
  known = () => consensus.members()

  measures.values = () => keeper?.counts
  measures.peers = () => transport.counters()
  const reclaimer = new Reclaimer({
    state,
    clock,
    batchRevisions: settings.compactionBatch,
    pauseMs: settings.compactionPauseMs,
  })
  const auth = new AuthKeeper({ settings, state, consensus, clock })
  const context: ServiceContext = {
    settings,
    state,
    consensus,
    leases,
    reclaimer,
    auth,
    clock,
    log,
    measures,
  }
  const watches = createWatchService(context)
  state.listen({
    onApplied: () => {
      watches.advance()
      reclaimer.kick()
    },
    onReplaced: () => {
      watches.reset()
      auth.onReplaced()
    },
    onTokenGiven: (name, token) => auth.onTokenGiven(name, token),
    onAuthChanged: (change) => auth.onAuthChanged(change),
    onLeaseGranted: (id, ttl) => leases.onGranted(id, ttl),
    onLeaseGone: (id) => leases.onGone(id),
  })
  // What was restored and replayed before anybody listened.
  watches.reset()
  reclaimer.kick()
  consensus.onLeaderChange(({ leader, term, isLeader }) => {
    log.info({ leader: leader.toString(16), term, isLeader }, 'leader changed')
  })
  leases.start(consensus)
  const stopCompaction = startAutoCompaction(
    settings.autoCompaction,
    {
      isLeader: () => consensus.isLeader(),
      revision: () => state.store.revision,
      compact: async (revision) => {
        await propose(context, { kind: 'compact', request: encodeCompact(revision) }, 'member')
        log.info({ revision }, 'compacted')
      },
    },
    clock,
  )
  const stopChecking = corruption.start(settings.corruptCheckMs)
  const stopUpgrade = startStoreUpgrade({
    own: { storeVersion, isNew },
    state,
    consensus,
    announcements: () => transport.announcements(),
    clock,
    log,
    settleMs: settings.storeUpgradeDelayMs,
  })
  const stopMarking = startTimeMarking({ state, consensus, clock, wallClock: Date.now, log })
  const stopDisarming = settings.autoDisarm ? startDisarming(context) : () => undefined
  const stopProbe = startPeerProbe({
    self: identity.memberId,
    members: () => consensus.members(),
    tls: peerTls,
    clock,
    observe: (peer, seconds) => measures.observeRoundTrip(peer, seconds),
  })
  const served = await serveClients(context, watches).catch(async (error: unknown) => {
    await consensus.stop()
    await reclaimer.stop()
    await keeper?.stop()
    throw error
  })
  const stopRenewal = watchCertificate(settings.clientTls?.certFile, clock, log, served.renewTls)
  const aborted = new AbortController()
  const published = publish(
    context,
    AbortSignal.any([aborted.signal, ...(options.stopping ? [options.stopping] : [])]),
  ).then(() => {
    refuseMixedReads(settings.leaseReads, transport.announcements())
    return settings.initialCorruptCheck ? checkFirst(corruption) : undefined
  })
  log.info(
    {
      version,
      memberId: identity.memberId.toString(16),
      clusterId: identity.clusterId.toString(16),
      name: settings.name,
      clients: served.clients,
    },
    'listening',
  )
  void published.then(
    () => log.info({ members: consensus.members().length }, 'serving'),
    () => undefined,
  )
  return {
    consensus,
    clients: served.clients,
    published,
    stop: async () => {
      aborted.abort()
      stopRenewal()
      stopCompaction()
      stopChecking()
      stopDisarming()
      stopProbe()
      stopUpgrade()
      stopMarking()
      await handOver(consensus, { clock, log })
      await served.close()
      await auth.stop()
      await leases.stop()
      await consensus.stop()
      await reclaimer.stop()
      await keeper?.stop()
      unlock()
    },
  }
}

/** Before anything is restored: what is restored may be more than memory takes. */
async function startKeeper(
  state: StoreState,
  { dataDir, valueBytesMax: bytesMax }: Settings,
  { clock, log, onFatal }: NodeOptions,
): Promise<ValueKeeper | undefined> {
  if (bytesMax === Number.POSITIVE_INFINITY) return undefined
  const file = await openScratchFile(dataDir)
  const keeper = new ValueKeeper({ memory: state.store.memory, file, bytesMax, clock, log, onFatal })
  state.values = keeper
  return keeper
}

/** A member that differs from the leader does not begin to serve. */
async function checkFirst(corruption: CorruptCheck): Promise<void> {
  if ((await corruption.compare()) !== 'different') return
  throw new Fault('STORE_DATA_DIFFERS', 'this member holds something else than the leader', {
    remedy: 'remove this member and add it again, empty',
  })
}

function startDisarming(context: ServiceContext): () => void {
  const { state, settings, consensus, clock, log } = context
  const target = {
    isArmed: () => state.alarms.list('nospace').some(({ member }) => member === consensus.id()),
    usedBytes: () => state.store.sizeBytes,
    quotaBytes: settings.quotaBytes,
    disarm: async () => {
      await propose(context, { kind: 'alarm', raise: false, member: consensus.id(), alarm: 'nospace' })
    },
  }
  return startAutoDisarm(target, clock, log)
}

/**
 * A leader that stops hands its place to another voter first, so that nobody waits for an election. It is only a courtesy:
 * where it does not go through in time the others elect as after a crash.
 */
async function handOver(consensus: Consensus<Applied>, ports: { clock: Clock; log: Log }): Promise<void> {
  const others = consensus.members().filter((member) => !member.learner && member.id !== consensus.id())
  for (const member of others) {
    if (!consensus.isLeader()) return
    let cancel = (): void => undefined
    const late = new Promise<void>((_resolve, reject) => {
      cancel = ports.clock.after(handOverMs, () =>
        reject(new Fault('STORE_TIMEOUT', 'handing over the lead')),
      )
    })
    await Promise.race([consensus.transferLeader(member.id), late])
      .catch((error: unknown) => ports.log.info({ to: member.name, error }, 'leadership was not handed over'))
      .finally(() => cancel())
  }
}

/** Tells the cluster this member's name and client URLs, as often as it takes. */
async function publish(context: ServiceContext, stopping: AbortSignal): Promise<void> {
  const { consensus, settings, clock, log } = context
  const { name, advertiseClientUrls: clientUrls } = settings
  for (;;) {
    if (stopping.aborted) throw new Fault('STORE_STOPPED', 'stopped before the cluster knew this member')
    try {
      await consensus.readIndex()
      const self = consensus.members().find(({ id }) => id === consensus.id())
      if (self?.name === name && self.clientUrls.join() === clientUrls.join()) return
      await consensus.updateMember(consensus.id(), { name, clientUrls })
    } catch (error) {
      log.debug({ reason: describeError(error) }, 'cluster does not know this member yet')
      await pause(clock, publishRetryMs)
    }
  }
}

const pause = (clock: Clock, ms: number): Promise<void> =>
  new Promise((resume) => void clock.after(ms, resume))
