/** The status codes of gRPC (doc/statuscodes.md of the gRPC project), by name. */
export const grpcCode = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  dataLoss: 15,
  unauthenticated: 16,
} as const

/** How a call ends: zero and no message, or a code and what went wrong. */
export type Status = { code: number; message: string }

export const okStatus: Status = { code: 0, message: '' }

/** Thrown by a handler to end its call with this status; anything else thrown becomes `unknown`. */
export class GrpcError extends Error {
  readonly code: number

  constructor(code: number, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'GrpcError'
    this.code = code
  }
}

/**
 * What is known of the request of a call that failed: it certainly had no effect, since the server's application never saw it; the
 * server answered it with this status; or the answer was lost, and it may have had its effect.
 */
export type CallEffect = 'none' | 'answered' | 'unknown'

/** How a call of a client failed. */
export class CallError extends GrpcError {
  readonly effect: CallEffect

  constructor(status: Status, effect: CallEffect, options: { cause?: unknown } = {}) {
    super(status.code, status.message, options)
    this.name = 'CallError'
    this.effect = effect
  }
}

/**
 * Percent-encodes a status message for the `grpc-message` trailer: UTF-8 bytes outside the printable ASCII range and
 * `%` itself (PROTOCOL-HTTP2.md, "Responses").
 */
export function encodeGrpcMessage(message: string): string {
  if (/^[ -$&-~]*$/.test(message)) return message
  let encoded = ''
  for (const byte of Buffer.from(message, 'utf8')) {
    encoded +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return encoded
}

/** The other way; what is not an encoded byte stays as it is. */
export function decodeGrpcMessage(text: string): string {
  if (!text.includes('%')) return text
  const bytes = text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return Buffer.from(bytes, 'latin1').toString('utf8')
}

/** The status of an answer that is not gRPC's, from something between us and the server (http-grpc-status-mapping.md). */
export function codeOfHttpStatus(status: number): number {
  switch (status) {
    case 400:
      return grpcCode.internal
    case 401:
      return grpcCode.unauthenticated
    case 403:
      return grpcCode.permissionDenied
    case 404:
      return grpcCode.unimplemented
    case 429:
    case 502:
    case 503:
    case 504:
      return grpcCode.unavailable
    default:
      return grpcCode.unknown
  }
}

/** The status of a stream that was reset with an HTTP/2 error code (PROTOCOL-HTTP2.md, "Errors"). */
export function codeOfReset(code: number): number {
  switch (code) {
    case 7:
      return grpcCode.unavailable
    case 8:
      return grpcCode.cancelled
    case 11:
      return grpcCode.resourceExhausted
    case 12:
      return grpcCode.permissionDenied
    default:
      return grpcCode.internal
  }
}

const timeoutUnitMs: Record<string, number> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000001,
}

/** Milliseconds of a `grpc-timeout` header: up to eight digits and a unit. Undefined if it is not one. */
export function parseGrpcTimeout(value: string): number | undefined {
  const unit = timeoutUnitMs[value.slice(-1)]
  const digits = value.slice(0, -1)
  if (unit === undefined || !/^[0-9]{1,8}$/.test(digits)) return undefined
  return Number(digits) * unit
}

/** The `grpc-timeout` header for so many milliseconds, rounded up. */
export function formatGrpcTimeout(timeoutMs: number): string {
  const ms = Math.max(1, Math.ceil(timeoutMs))
  return ms < 1e8 ? `${ms}m` : `${Math.min(Math.ceil(ms / 1000), 99_999_999)}S`
}
