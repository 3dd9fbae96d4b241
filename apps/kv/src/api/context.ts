import type { Outcome } from '@kiln/mvcc'
import type { Clock, Log } from '@kiln/service'
import type { CallInfo } from '@kiln/wire'
import type { AuthKeeper } from '../auth/auth-keeper.ts'
import type { Consensus } from '../consensus/types.ts'
import { type Measures, slowReadMs } from '../http/measures.ts'
import { SlowCalls } from '../http/slow-calls.ts'
import type { LeaseKeeper } from '../leases/lease-keeper.ts'
import type { Settings } from '../settings/settings.ts'
import { type Command, encodeCommand, encodeCommandOf } from '../state/command.ts'
import type { Proposer } from '../state/proposer.ts'
import type { Reclaimer } from '../state/reclaimer.ts'
import type { Applied, StoreState } from '../state/state-machine.ts'
import { fail, statuses, toGrpcError } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'

/** What the services of one member share. */
export type ServiceContext = {
  settings: Settings
  state: StoreState
  consensus: Consensus<Applied>
  leases: LeaseKeeper
  reclaimer: Reclaimer
  auth: AuthKeeper
  clock: Clock
  log: Log
  measures: Measures
}

export type ResponseHeader = { clusterId: bigint; memberId: bigint; revision: number; raftTerm: number }

/** The header of every response; `revision` is the store's when the response was made, unless one is given. */
export function headerOf(context: ServiceContext, revision = context.state.store.revision): ResponseHeader {
  const { consensus } = context
  return {
    clusterId: consensus.clusterId(),
    memberId: consensus.id(),
    revision,
    raftTerm: consensus.term(),
  }
}

/** Registers a unary method whose handler may throw what the store and the consensus throw. */
export function unary(
  server: MethodRegistry,
  path: string,
  handler: (request: Uint8Array, call: CallInfo) => Promise<Uint8Array> | Uint8Array,
): void {
  server.unary(path, async (request, call) => {
    try {
      return await handler(request, call)
    } catch (thrown) {
      throw toGrpcError(thrown)
    }
  })
}

/** Refuses what needs more than this member alone, where that is not to be had. */
export function checkServing(context: ServiceContext, call: CallInfo): void {
  const { consensus } = context
  if (call.hasLeader && consensus.leader() === 0n) fail(statuses.noLeader)
  if (isLearner(context)) fail(statuses.learner)
}

export function isLearner({ consensus }: ServiceContext): boolean {
  return consensus.members().find(({ id }) => id === consensus.id())?.learner ?? false
}

/** Waits until this member has all that was acknowledged before, for the sake of `call`. */
export async function readIndex(
  { consensus, measures, clock, settings }: ServiceContext,
  call: CallInfo,
): Promise<void> {
  const startedAt = clock.now()
  try {
    await consensus.readIndex()
  } catch (error) {
    measures.readsFailed++
    throw error
  } finally {
    const endedAt = clock.now()
    if (endedAt - startedAt > slowReadMs) measures.slowReads++
    if (endedAt - startedAt > SlowCalls.noteMs(settings.slowRequestMs)) {
      measures.slowCalls.note(call, 'admitted', startedAt)
      measures.slowCalls.note(call, 'confirmed', endedAt)
    }
  }
}

/**
 * Proposes a command and answers what applying it here gave. `by` is whom `auth.admit` let through; `member` is this member,
 * which is asked for no permission.
 * If `call` is slow it is logged where its time went.
 */
export async function propose<K extends Command['kind']>(
  { consensus, measures, state }: Pick<ServiceContext, 'consensus' | 'measures' | 'state'>,
  command: Command & { kind: K },
  by?: Proposer,
  call?: CallInfo,
): Promise<Applied & { kind: K }> {
  const isAnonymous = by === undefined || (by === 'member' && !state.auth.enabled)
  const entry = isAnonymous ? encodeCommand(command) : encodeCommandOf(command, by)
  let applied: Applied
  measures.proposalsPending++
  try {
    applied = await consensus.propose(entry, call)
  } catch (error) {
    measures.proposalsFailed++
    throw error
  } finally {
    measures.proposalsPending--
  }
  if (applied.kind !== command.kind) throw new Error(`assertion failed: ${command.kind} gave ${applied.kind}`)
  return applied as Applied & { kind: K }
}

export function acceptedValue<T>(outcome: Outcome<T>): T {
  if (!outcome.ok) fail(outcome.refusal)
  return outcome.value
}
