import { createHash } from 'node:crypto'
import { type BucketSource, planDatabase, writeDatabase } from '@kiln/bbolt'
import * as rpc from '@kiln/etcd-api/rpc'
import { pinStore, ValueFetch } from '@kiln/mvcc'
import { GrpcError, grpcCode, type StreamCall } from '@kiln/wire'
import { databaseOf } from '../snapshot/database.ts'
import type { ServiceContext } from './context.ts'
import { statuses, toGrpcError } from './errors.ts'
import { clusterVersion } from './maintenance-service.ts'
import type { MethodRegistry } from './method-table.ts'

/** Streams at a time: each pins a history. */
const snapshotsMax = 4

/**
 * Maintenance.Snapshot (kv.md section 7): a bbolt database in etcd's schema as of the moment of the call, then the SHA-256 of
 * it. The store is pinned, not copied: writes go on, and memory is some pages and what the client has not read yet.
 */
export function serveSnapshot(server: MethodRegistry, context: ServiceContext): void {
  let running = 0
  server.stream('/etcdserverpb.Maintenance/Snapshot', (call) => {
    let drained = (): void => undefined
    let asked = false
    return {
      onMessage: () => {
        if (asked) return
        asked = true
        if (running >= snapshotsMax) {
          const { code, text } = statuses.tooManyRequests
          call.end({ code, message: text })
          return
        }
        running++
        send(call, context, (resume) => {
          drained = resume
        })
          .catch((thrown: unknown) => {
            const error = toGrpcError(thrown)
            if (error instanceof GrpcError) {
              call.end({ code: error.code, message: error.message })
              return
            }
            context.log.error({ error }, 'a snapshot could not be sent')
            call.end({ code: grpcCode.internal, message: 'etcdserver: the snapshot could not be read' })
          })
          .finally(() => {
            running--
          })
      },
      onDrain: () => drained(),
      onClose: () => drained(),
    }
  })
}

async function send(
  call: StreamCall,
  context: ServiceContext,
  onDrain: (resume: () => void) => void,
): Promise<void> {
  await context.auth.admit(call, { kind: 'admin' }, 'local')
  const began = performance.now()
  const { values } = context.state
  const buckets = pinnedDatabase(context)
  const planning = planDatabase(buckets)
  let step = planning.next()
  while (!step.done) {
    if (step.value) await values.read(step.value)
    else await turn()
    if (call.closed) return
    step = planning.next()
  }
  const plan = step.value
  const reply = (blob: Uint8Array, remaining: number): boolean => {
    const head = rpc.SnapshotResponse.encode({
      // As etcd answers.
      header: undefined,
      remainingBytes: BigInt(remaining),
      blob: new Uint8Array(0),
      version: clusterVersion,
    }).finish()
    return call.send(withBlobHead(head, blob.length), blob)
  }
  const hash = createHash('sha256')
  let remaining = plan.sizeBytes
  for (const piece of writeDatabase(buckets, plan)) {
    if (piece instanceof ValueFetch) {
      await values.read(piece)
      continue
    }
    hash.update(piece)
    remaining -= piece.length
    if (reply(piece, remaining)) await turn()
    else await new Promise<void>((resume) => onDrain(resume))
    if (call.closed) return
  }
  reply(hash.digest(), 0)
  call.end()
  const durationMs = Math.round(performance.now() - began)
  context.log.info({ bytes: plan.sizeBytes, durationMs }, 'snapshot sent')
}

/** The database as of this moment, for a sizing and a writing pass. */
function pinnedDatabase({ state, consensus }: ServiceContext): BucketSource<ValueFetch>[] {
  const { appliedIndex, appliedTerm } = consensus.status()
  return databaseOf({
    store: pinStore(state.store, 2),
    alarms: [...state.alarms.list()],
    auth: state.auth.exportState(),
    members: consensus.members(),
    appliedIndex,
    appliedTerm,
  })
}

/** The encoded rest of a response and the head of its blob (field 3), which follows by itself. */
function withBlobHead(rest: Uint8Array, blobBytes: number): Buffer {
  const head = [0x1a]
  let left = blobBytes
  for (; left >= 0x80; left >>= 7) head.push((left & 0x7f) | 0x80)
  head.push(left)
  return Buffer.concat([rest, Buffer.from(head)])
}

const turn = (): Promise<void> => new Promise((resume) => setImmediate(resume))
