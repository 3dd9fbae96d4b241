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
