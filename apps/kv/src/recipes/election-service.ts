import { prefixEnd } from '@kiln/etcd-api'
import * as election from '@kiln/etcd-api/election'
import type { KeyValue } from '@kiln/etcd-api/mvcc'
import type { ResponseHeader } from '@kiln/etcd-api/rpc'
import type { StoreEvent } from '@kiln/mvcc'
import { type CallInfo, GrpcError, grpcCode, type StreamCall } from '@kiln/wire'
import { headerOf, type ServiceContext } from '../api/context.ts'
import type { MethodTable } from '../api/method-table.ts'
import { decode } from '../api/requests.ts'
import { toHeader, toKeyValue } from '../api/responses.ts'
import type { WatchService } from '../api/watch-service.ts'
import { follow } from './follow.ts'
import { asRecipeError, recipe, recipeRefusal } from './recipe.ts'
import { createdAt, deleteOp, getOp, putOp, type StoreCalls, storeCalls } from './store-calls.ts'
import { keyOf, oldest, prefixOf, waitForTurn } from './turns.ts'

type Ports = { methods: MethodTable; watches: WatchService; context: ServiceContext }

/** Elections: v3electionpb.Election (kv.md section 7). The oldest key below the name is the leader's, its value what it proclaims. */
export function serveElection(methods: MethodTable, context: ServiceContext, watches: WatchService): void {
  const service = '/v3electionpb.Election'

  recipe(methods, `${service}/Campaign`, election.CampaignRequest, async (request, call, signal) =>
    election.CampaignResponse.encode(
      await campaign({ methods, watches, context }, request, call, signal),
    ).finish(),
  )

  recipe(methods, `${service}/Proclaim`, election.ProclaimRequest, async ({ leader, value }, call) => {
    const header = await proclaim(storeCalls(methods, call), leader ?? missing(), value)
    return election.ProclaimResponse.encode({ header }).finish()
  })

  recipe(methods, `${service}/Resign`, election.ResignRequest, async ({ leader }, call) => {
    const { key, rev } = leader ?? missing()
    const { header } = await storeCalls(methods, call).txn({
      compare: [createdAt(key, rev)],
      success: [deleteOp(key)],
    })
    return election.ResignResponse.encode({ header }).finish()
  })

  recipe(methods, `${service}/Leader`, election.LeaderRequest, async ({ name }, call) => {
    const { header, kvs } = await storeCalls(methods, call).range(oldest(name))
    if (kvs.length === 0) throw recipeRefusal('election: no leader')
    return election.LeaderResponse.encode({ header, kv: kvs[0] }).finish()
  })

  methods.stream(`${service}/Observe`, (call) => observer({ methods, watches, context }, call))
}

const missing = (): never => {
  throw recipeRefusal('"leader" field must be provided')
}

async function campaign(
  { methods, watches }: Ports,
  { name, lease: givenLease, value }: election.CampaignRequest,
  call: CallInfo,
  signal: AbortSignal,
): Promise<election.CampaignResponse> {
  const store = storeCalls(methods, call)
  const lease = await store.leaseOr(givenLease)
  const key = keyOf(name, lease)
  const { header, succeeded, responses } = await store.txn({
    compare: [createdAt(key, 0n)],
    success: [putOp(key, value, lease)],
    failure: [getOp({ key })],
  })
  const response = responses[0]?.response
  const own = !succeeded && response?.$case === 'responseRange' ? response.value.kvs[0] : undefined
  const leader = { name, key, rev: own?.createRevision ?? header!.revision, lease }
  try {
    if (own && !Buffer.from(own.value).equals(value)) await proclaim(store, leader, value)
    await waitForTurn({ store, watches }, { name, revision: leader.rev }, signal)
  } catch (error) {
    await store
      .txn({ compare: [createdAt(key, leader.rev)], success: [deleteOp(key)] })
      .catch(() => undefined)
    throw error
  }
  return { header, leader }
}

async function proclaim(
  store: StoreCalls,
  { key, rev, lease }: election.LeaderKey,
  value: Uint8Array,
): Promise<ResponseHeader | undefined> {
  const { header, succeeded } = await store.txn({
    compare: [createdAt(key, rev)],
    success: [putOp(key, value, lease)],
  })
  if (!succeeded) throw recipeRefusal('election: not leader')
  return header
}

/** Sends the leader of a name whenever there is a new one or it proclaims something else. */
function observer(ports: Ports, call: StreamCall) {
  const gone = new AbortController()
  let drained = (): void => undefined
  const send = async (header: ResponseHeader | undefined, kv: KeyValue): Promise<void> => {
    if (call.send(election.LeaderResponse.encode({ header, kv }).finish())) return
    await new Promise<void>((resume) => {
      drained = resume
    })
  }
  let isRunning = false
  return {
    onMessage: (bytes: Uint8Array): void => {
      if (isRunning) return
      isRunning = true
      const { name } = decode(election.LeaderRequest, bytes)
      observe(ports, { name, call, signal: gone.signal }, send).catch((thrown: unknown) => {
        const error = asRecipeError(thrown)
        if (!(error instanceof GrpcError)) ports.context.log.error({ error }, 'observing an election failed')
        const message = error instanceof GrpcError ? error.message : 'internal error'
        call.end({ code: grpcCode.unknown, message })
      })
    },
    onDrain: (): void => drained(),
    onClose: (): void => {
      gone.abort()
      drained()
    },
  }
}

async function observe(
  { methods, watches, context }: Ports,
  { name, call, signal }: { name: Uint8Array; call: StreamCall; signal: AbortSignal },
  send: (header: ResponseHeader | undefined, kv: KeyValue) => Promise<void>,
): Promise<never> {
  const store = storeCalls(methods, call)
  const headerAt = (revision: number): ResponseHeader => toHeader(headerOf(context, revision))
  for (;;) {
    const { header, kvs } = await store.range(oldest(name))
    let leader = kvs[0]
    let revision = Number(header!.revision)
    if (leader) await send(header, leader)
    else {
      const first = await firstPut(watches, name, revision + 1, signal)
      leader = toKeyValue(first.event.kv)
      revision = first.revision
      await send(headerAt(revision), leader)
    }
    const from = { key: leader.key, rangeEnd: new Uint8Array(0), startRevision: revision + 1 }
    reign: for await (const message of follow(watches, from, signal)) {
      for (const { type, kv } of message.events) {
        if (type === 'delete') break reign
        await send(headerAt(message.revision), toKeyValue(kv))
      }
    }
  }
}

/** The first key that appears below a name. */
async function firstPut(
  watches: WatchService,
  name: Uint8Array,
  startRevision: number,
  signal: AbortSignal,
): Promise<{ event: StoreEvent; revision: number }> {
  const key = prefixOf(name)
  const from = { key, rangeEnd: prefixEnd(key), startRevision, noDelete: true }
  for await (const { events, revision } of follow(watches, from, signal)) {
    const event = events[0]
    if (event) return { event, revision }
  }
  throw new Error('assertion failed: a watch ends by throwing')
}
