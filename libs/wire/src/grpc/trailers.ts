import { type Fields, grpcOkTrailers } from '../http2/hpack-encoder.ts'
import { encodeGrpcMessage, type Status } from './status.ts'

/** Clients refuse header lists beyond a few KiB; an error text has no business being longer. */
const messageCharsMax = 4096

/** The trailers that end a call. */
export function trailers(status: Status): Fields {
  if (status.code === 0 && status.message === '') return grpcOkTrailers
  const fields: [string, string][] = [['grpc-status', String(status.code)]]
  if (status.message !== '')
    fields.push(['grpc-message', encodeGrpcMessage(status.message.slice(0, messageCharsMax))])
  return fields
}

/** The one header block of an answer that has no message (PROTOCOL-HTTP2.md, "Trailers-Only"). */
export function trailersOnly(status: Status): Fields {
  return [[':status', '200'], ['content-type', 'application/grpc'], ...trailers(status)]
}
