import { parseGrpcTimeout } from '../grpc/status.ts'
import { type HeaderField, slotOf } from './hpack-table.ts'

/** The headers of a request. Heads are shared between requests with the same bytes: never change one. */
export type RequestHead = {
  readonly method: string
  readonly scheme: string
  readonly path: string
  readonly authority: string
  readonly contentType: string
  readonly isGrpc: boolean
  /** From `grpc-timeout`; NaN if that is malformed. */
  readonly timeoutMs: number | undefined
  readonly encoding: string
  readonly token: string | undefined
  readonly hasLeader: boolean
  /** The list went over the limit: only its first fields are known. */
  readonly tooLarge: boolean
  readonly fields: readonly HeaderField[]
}

const method = slotOf(':method')
const scheme = slotOf(':scheme')
const path = slotOf(':path')
const authority = slotOf(':authority')
const contentType = slotOf('content-type')
const te = slotOf('te')
const grpcTimeout = slotOf('grpc-timeout')
const grpcEncoding = slotOf('grpc-encoding')
const token = slotOf('token')
const authorization = slotOf('authorization')
const hasLeader = slotOf('hasleader')
const firstConnectionHeader = slotOf('connection')

/** Stands for the head of a request of ours. */
export const emptyRequestHead: RequestHead = {
  method: '',
  scheme: '',
  path: '',
  authority: '',
  contentType: '',
  isGrpc: false,
  timeoutMs: undefined,
  encoding: 'identity',
  token: undefined,
  hasLeader: false,
  tooLarge: false,
  fields: [],
}

/**
 * Reads a field list as a request (RFC 9113, section 8.2 and 8.3). A string says why it is malformed.
 */
export function readRequestHead(fields: readonly HeaderField[]): RequestHead | string {
  const head = {
    method: '',
    scheme: '',
    path: '',
    authority: '',
    contentType: '',
    isGrpc: false,
    timeoutMs: undefined as number | undefined,
    encoding: 'identity',
    token: undefined as string | undefined,
    hasLeader: false,
    tooLarge: false,
    fields,
  }
  let seen = 0
  let regular = false
  let auth: string | undefined
  for (const field of fields) {
    const { slot, value } = field
    if (slot >= 1 && slot <= authority) {
      if (regular || seen & (1 << slot)) return `misplaced or repeated ${field.name}`
      seen |= 1 << slot
      if (slot === method) head.method = value
      else if (slot === scheme) head.scheme = value
      else if (slot === path) head.path = value
      else head.authority = value
      continue
    }
    regular = true
    if (slot === 0) {
      if (!isFieldName(field.name)) return 'invalid header name'
    } else if (slot === contentType) head.contentType = value
    else if (slot === grpcTimeout) head.timeoutMs = parseGrpcTimeout(value) ?? Number.NaN
    else if (slot === token) head.token = value
    else if (slot === authorization) auth = value
    else if (slot === hasLeader) head.hasLeader = value === 'true'
    else if (slot === grpcEncoding) head.encoding = value
    else if (slot === te) {
      if (value !== 'trailers') return 'te other than trailers'
    } else if (slot >= firstConnectionHeader) return `connection header ${field.name}`
  }
  if (head.method === '' || (head.method !== 'CONNECT' && (head.path === '' || head.scheme === '')))
    return 'pseudo-header missing'
  head.token ??= auth
  head.isGrpc = isGrpcContentType(head.contentType)
  return head
}

/** `application/grpc`, alone or followed by `+proto` and the like or by parameters; not `application/grpc-web`. */
function isGrpcContentType(value: string): boolean {
  if (!value.startsWith('application/grpc')) return false
  const next = value[16]
  return next === undefined || next === '+' || next === ';'
}

/** Visible, lower case, and no pseudo-header the request may not have. */
function isFieldName(name: string): boolean {
  if (name.length === 0) return false
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at)
    if (code <= 0x20 || code >= 0x7f || (code >= 0x41 && code <= 0x5a) || code === 0x3a) return false
  }
  return true
}

/** A header by its lower-case name; repeated ones are joined by a comma. */
export function headerOf(head: RequestHead, name: string): string | undefined {
  let found: string | undefined
  for (const field of head.fields) {
    if (field.name === name) found = found === undefined ? field.value : `${found},${field.value}`
  }
  return found
}
