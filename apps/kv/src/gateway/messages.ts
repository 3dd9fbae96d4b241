import type { ServerResponse } from 'node:http'
import type { MethodCodec } from '@kiln/etcd-api/descriptors'
import { GrpcError, grpcCode } from '@kiln/wire'
import { httpStatusOf } from './http-status.ts'
import { parseJson } from './json-text.ts'

/** A request from its JSON text; no text is a request of defaults. */
export function requestOf(codec: MethodCodec, text: string): Uint8Array {
  try {
    return codec.requestFromJson(text.trim() === '' ? {} : parseJson(text))
  } catch (cause) {
    throw new GrpcError(grpcCode.invalidArgument, (cause as Error).message, { cause })
  }
}

export const messageTooLong = (charsMax: number): GrpcError =>
  new GrpcError(grpcCode.resourceExhausted, `received message is larger than ${charsMax} bytes`)

export function answerError(response: ServerResponse, error: Error, status?: number): void {
  if (response.headersSent || response.destroyed) return
  const code = error instanceof GrpcError ? error.code : grpcCode.unknown
  send(response, status ?? httpStatusOf(code), { error: error.message, code, message: error.message })
}

export function send(response: ServerResponse, status: number, json: unknown): void {
  const body = Buffer.from(JSON.stringify(json))
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length })
  response.end(body)
}
