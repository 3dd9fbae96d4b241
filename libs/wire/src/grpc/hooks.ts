import type { CallInfo } from './call.ts'

/** How a call went, for metrics. */
export type CallEnd = {
  path: string
  kind: 'unary' | 'stream'
  code: number
  durationMs: number
  messagesIn: number
  messagesOut: number
}

/** Who wants to know about calls. */
export type CallHooks = {
  now(): number
  /** A handler threw something that is no GrpcError; the call ended with `unknown`. */
  onHandlerError?(error: unknown, path: string): void
  onCallStart?(path: string, kind: 'unary' | 'stream'): void
  /** `call` is what the handler was given. */
  onCallEnd?(end: CallEnd, call: CallInfo): void
}
