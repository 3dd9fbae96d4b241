import type { ContainerStats, Event, Image, Pod } from '@kiln/runtime-api/messages'
import { describeError, Fault } from '@kiln/service'
import { GrpcError, grpcCode } from '@kiln/wire'
import * as z from 'zod'
import type { PodEvent } from '../events/event-log.ts'
import type { ImageEntry } from '../image-service.ts'
import type { PodEntry } from '../life/pod-entry.ts'
import type { ContainerStatistics } from '../pod-kernel.ts'

type Codec<T> = { decode(bytes: Uint8Array): T }

export function decode<T>(codec: Codec<T>, bytes: Uint8Array): T {
  try {
    return codec.decode(bytes)
  } catch (cause) {
    throw new GrpcError(grpcCode.invalidArgument, 'REQUEST_INVALID: these bytes are no message', { cause })
  }
}

/** The status of a call that failed; its message begins with the code of docs/reference/errors.md. */
export function grpcError(error: unknown): GrpcError {
  if (error instanceof GrpcError) return error
  const message = describeError(error).slice(0, 2000)
  if (error instanceof z.ZodError)
    return new GrpcError(grpcCode.invalidArgument, `REQUEST_INVALID: ${message}`)
  if (!(error instanceof Fault)) return new GrpcError(grpcCode.internal, message)
  if (/_(NOT_FOUND|NOT_PRESENT)$/.test(error.code)) return new GrpcError(grpcCode.notFound, message)
  if (/_INVALID$/.test(error.code)) return new GrpcError(grpcCode.invalidArgument, message)
  return new GrpcError(grpcCode.failedPrecondition, message)
}

export const podMessage = ({ once: _, ...entry }: PodEntry): Pod => ({
  startedAt: undefined,
  exitedAt: undefined,
  exitCode: undefined,
  ...entry,
  apps: entry.apps.map((app) => ({ pid: undefined, exitCode: undefined, ...app })),
})

export const imageMessage = (image: ImageEntry): Image => ({
  reference: image.reference,
  digest: image.digest,
  configDigest: image.configDigest,
  sizeBytes: BigInt(image.sizeBytes),
  layers: image.layers,
  importedAt: image.importedAt,
  lastUsedAt: image.lastUsedAt,
  usedBy: image.usedBy,
})

export const statsMessage = (
  of: { pod: string; uuid: string },
  { container, statistics, memoryLimitBytes }: ContainerStatistics,
): ContainerStats => ({
  ...of,
  container,
  cpuMicroseconds: BigInt(statistics.cpuMicroseconds),
  memoryBytes: BigInt(statistics.memoryBytes),
  memoryPeakBytes: statistics.memoryPeakBytes === undefined ? undefined : BigInt(statistics.memoryPeakBytes),
  memoryLimitBytes: memoryLimitBytes === undefined ? undefined : BigInt(memoryLimitBytes),
  processes: statistics.pids,
  oomKills: statistics.oomKills,
})

export const eventMessage = ({ formatVersion: _, ...event }: PodEvent): Event => ({
  container: undefined,
  fault: undefined,
  exitCode: undefined,
  signal: undefined,
  ...event,
  sequence: BigInt(event.sequence),
  delayMs: event.delayMs === undefined ? undefined : BigInt(event.delayMs),
})
