export { createWireClient } from './client.ts'
export type {
  CallOptions,
  ClientStream,
  WireClient,
  WireClientOptions,
  WireClientStats,
} from './client-options.ts'
export type { WireClientTls } from './client-socket.ts'
export type {
  CallInfo,
  CloseReason,
  Peer,
  StreamCall,
  StreamHandler,
  StreamListener,
  UnaryCall,
  UnaryHandler,
} from './grpc/call.ts'
export type { CallListener } from './grpc/client-exchange.ts'
export type { CallEnd } from './grpc/hooks.ts'
export {
  type CallEffect,
  CallError,
  GrpcError,
  grpcCode,
  okStatus,
  type Status,
} from './grpc/status.ts'
export { defaultClientLimits, defaultLimits, type WireLimits } from './limits.ts'
export type { WireTls } from './listener.ts'
export { createWireServer, type WireServer, type WireServerOptions, type WireStats } from './server.ts'
