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
export type { CallEnd } from './grpc/hooks.ts'
export { GrpcError, grpcCode, okStatus, type Status } from './grpc/status.ts'
export { defaultLimits, type WireLimits } from './limits.ts'
export type { WireTls } from './listener.ts'
export { createWireServer, type WireServer, type WireServerOptions, type WireStats } from './server.ts'
