export { buildFuzz, buildNative } from './build.ts'
export { type Capability, capabilitiesFor, capabilityMask, isCapability } from './capabilities.ts'
export { type ExitRecord, isAlive, type RunningRecord, signalProcess, startPlan } from './launcher.ts'
export type {
  Capabilities,
  ContainerPlan,
  Device,
  ExecPlan,
  Mount,
  Plan,
  ProcessId,
  ProcessPlan,
  SandboxPlan,
} from './plan.ts'
export { decodePlan, encodePlan } from './plan-codec.ts'
