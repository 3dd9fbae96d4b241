export { buildFuzz, buildNative } from './build.ts'
export {
  type Capability,
  capabilitiesFor,
  capabilityMask,
  capabilityNames,
  isCapability,
} from './capabilities.ts'
export { type ExitRecord, isAlive, type RunningRecord, signalProcess, startPlan } from './launcher.ts'
export type {
  Capabilities,
  ContainerPlan,
  Device,
  ExecPlan,
  Mount,
  Plan,
  PlanRecord,
  ProcessId,
  ProcessPlan,
  SandboxPlan,
  TerminalSize,
} from './plan.ts'
export { attachBits, deviceTypes, type Namespace, namespaceBits } from './plan.ts'
export { decodePlan, encodePlan, encodeRecords } from './plan-codec.ts'
