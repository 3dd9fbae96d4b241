import type { StoreHash } from '@kiln/mvcc'
import type { MinorVersion } from '../state/command.ts'
import { hashStore } from '../state/store-hash.ts'
import {
  acceptedValue,
  checkServing,
  headerOf,
  isLearner,
  propose,
  readIndex,
  type ServiceContext,
  unary,
} from './context.ts'
import { fail, statuses } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'
import { decodeAlarm, decodeDowngrade, decodeHashKv, decodeMoveLeader } from './requests.ts'
import {
  encodeAlarms,
  encodeDowngrade,
  encodeHash,
  encodeHashKv,
  encodeHeaderOnly,
  encodeStatus,
} from './responses.ts'

/** The etcd release whose API this is; clients read it from Status and /version. */
export const apiVersion = '3.5.16'
export const clusterVersion = '3.5.0'
/** A store without a key is not of size 0 to clients. */
const baseBytes = 4096

/** Bytes that the quota counts. */
export const sizeBytes = ({ state }: ServiceContext): number => state.store.sizeBytes + baseBytes

/** Maintenance: etcdserverpb.Maintenance (kv.md section 7). */
export function serveMaintenance(server: MethodRegistry, context: ServiceContext): void {
  const { state, consensus, reclaimer, auth, log } = context

  unary(server, '/etcdserverpb.Maintenance/Status', async (_bytes, call) => {
    await auth.admit(call, { kind: 'login' }, 'local')
    const status = consensus.status()
    const errors = state.alarms
      .list()
      .map(({ member, alarm }) => `memberID:${member} alarm:${alarm === 'nospace' ? 'NOSPACE' : 'CORRUPT'} `)
    if (status.leader === 0n) errors.unshift(statuses.noLeader.text)
    return encodeStatus(headerOf(context), {
      version: apiVersion,
      dbSize: sizeBytes(context),
      dbSizeInUse: sizeBytes(context),
      leader: status.leader,
      raftIndex: status.committedIndex,
      raftTerm: status.term,
      raftAppliedIndex: status.appliedIndex,
      errors,
      isLearner: isLearner(context),
      storageVersion: clusterVersion,
      quota: context.settings.quotaBytes,
      downgrade: state.downgrade && fullVersion(state.downgrade),
    })
  })

  unary(server, '/etcdserverpb.Maintenance/Alarm', async (bytes, call) => {
    const { action, member, alarm } = decodeAlarm(bytes)
    if (isLearner(context)) fail(statuses.learner)
    if (action === 'get') {
      await auth.admit(call, { kind: 'login' }, 'local')
      return encodeAlarms(headerOf(context), state.alarms.list(alarm))
    }
    checkServing(context, call)
    const who = await auth.admit(call, { kind: 'admin' }, 'confirmed')
    if (alarm === undefined) return encodeAlarms(headerOf(context), [])
    const { alarms } = await propose(
      context,
      { kind: 'alarm', raise: action === 'activate', member, alarm },
      who,
    )
    return encodeAlarms(headerOf(context), alarms)
  })

  // Nothing is ever fragmented here. What can be given back is compacted versions that are still being freed, and the log
  // behind a new snapshot, which is saved while others go on.
  unary(server, '/etcdserverpb.Maintenance/Defragment', async (_bytes, call) => {
    checkServing(context, call)
    await auth.admit(call, { kind: 'admin' }, 'local')
    const before = state.store.sizeBytes
    await reclaimer.done(true)
    log.info({ freedBytes: before - state.store.sizeBytes }, 'defragmented')
    consensus.compactLog().catch((error: unknown) => log.warn({ error }, 'the log was not shortened'))
    // Without a header, as etcd answers.
    return new Uint8Array(0)
  })

  const hash = async (revision: number): Promise<StoreHash> => acceptedValue(await hashStore(state, revision))
  unary(server, '/etcdserverpb.Maintenance/HashKV', async (bytes, call) => {
    checkServing(context, call)
    await auth.admit(call, { kind: 'admin' }, 'local')
    const { revision } = decodeHashKv(bytes)
    return encodeHashKv(headerOf(context), await hash(revision))
  })
  unary(server, '/etcdserverpb.Maintenance/Hash', async (_bytes, call) => {
    checkServing(context, call)
    await auth.admit(call, { kind: 'admin' }, 'local')
    return encodeHash(headerOf(context), await hash(0))
  })

  unary(server, '/etcdserverpb.Maintenance/Downgrade', async (bytes, call) => {
    checkServing(context, call)
    await auth.admit(call, { kind: 'admin' }, 'confirmed')
    const { action, version } = decodeDowngrade(bytes)
    await readIndex(context, call)
    if (action === 'cancel') {
      if (!state.downgrade) fail(statuses.noDowngrade)
      await propose(context, { kind: 'downgrade', target: undefined })
    } else {
      const target = parseVersion(version) ?? fail(statuses.downgradeFormat)
      const own = parseVersion(clusterVersion)!
      if (target.major !== own.major || target.minor !== own.minor - 1) fail(statuses.downgradeTarget)
      if (state.downgrade) fail(statuses.downgradeUnderWay)
      if (action === 'enable') await propose(context, { kind: 'downgrade', target })
    }
    return encodeDowngrade(headerOf(context), clusterVersion)
  })

  unary(server, '/etcdserverpb.Maintenance/MoveLeader', async (bytes, call) => {
    checkServing(context, call)
    await auth.admit(call, { kind: 'admin' }, 'confirmed')
    if (!consensus.isLeader()) fail(statuses.notLeader)
    const target = decodeMoveLeader(bytes)
    const member = consensus.members().find(({ id }) => id === target)
    if (!member || member.learner) fail(statuses.badTransferee)
    await consensus.transferLeader(target)
    return encodeHeaderOnly(headerOf(context))
  })
}

/** `3.4`, `3.4.0` or `v3.4.0`; the patch version plays no part. */
function parseVersion(text: string): MinorVersion | undefined {
  const match = /^v?(\d{1,9})\.(\d{1,9})(?:\.\d{1,9})?$/.exec(text)
  return match ? { major: Number(match[1]), minor: Number(match[2]) } : undefined
}

const fullVersion = ({ major, minor }: MinorVersion): string => `${major}.${minor}.0`
