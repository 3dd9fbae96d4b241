import type { HeaderField } from './hpack-table.ts'

/** The headers or trailers of an answer. Shared between answers with the same bytes: never change one. */
export type AnswerHead = {
  /** HTTP status; 0 in trailers. */
  readonly status: number
  readonly contentType: string
  readonly encoding: string
  /** From `grpc-status`; NaN if that is malformed. */
  readonly grpcStatus: number | undefined
  readonly grpcMessage: string
  readonly tooLarge: boolean
  readonly fields: readonly HeaderField[]
}

/** Reads a field list as head or trailers of an answer (RFC 9113, section 8.3.2). A string says why it is malformed. */
export function readAnswerHead(fields: readonly HeaderField[]): AnswerHead | string {
  const head = {
    status: 0,
    contentType: '',
    encoding: 'identity',
    grpcStatus: undefined as number | undefined,
    grpcMessage: '',
    tooLarge: false,
    fields,
  }
  for (const [at, { name, value }] of fields.entries()) {
    switch (name) {
      case ':status':
        if (at !== 0 || !/^[1-9][0-9]{2}$/.test(value)) return 'misplaced or malformed :status'
        head.status = Number(value)
        break
      case 'content-type':
        head.contentType = value
        break
      case 'grpc-encoding':
        head.encoding = value
        break
      case 'grpc-status':
        head.grpcStatus = /^[0-9]{1,9}$/.test(value) ? Number(value) : Number.NaN
        break
      case 'grpc-message':
        head.grpcMessage = value
        break
      default:
        if (name === '' || name.startsWith(':')) return 'invalid header name'
    }
  }
  return head
}
