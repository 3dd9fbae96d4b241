export { Group, KilnGroup, Profile } from './groups.ts'
export {
  IgnitionConfig,
  type IgnitionDirectory,
  type IgnitionDisk,
  type IgnitionFile,
  type IgnitionFilesystem,
  type IgnitionGroup,
  type IgnitionLink,
  type IgnitionLuks,
  type IgnitionPartition,
  type IgnitionRaid,
  IgnitionResource,
  type IgnitionUnit,
  type IgnitionUser,
} from './ignition.ts'
export { decodeDataUrl, encodeDataUrl } from './ignition-data-url.ts'
export { duplicateEntries } from './ignition-duplicates.ts'
export { offsetOfPath, parseJson } from './ignition-json.ts'
export { mergeIgnition } from './ignition-merge.ts'
export {
  checkMergedIgnition,
  describeIgnitionProblem,
  type IgnitionParsing,
  type IgnitionProblem,
  parseIgnition,
} from './ignition-parse.ts'
export { ignitionNewest, ignitionVersions } from './ignition-versions.ts'
export {
  installLabels,
  KeptLabels,
  keepArgument,
  keptLabels,
  keptText,
  ReinstallRequest,
} from './kept-labels.ts'
export {
  changedArguments,
  KernelArgumentChanges,
  kernelArgumentsFile,
  reservedArguments,
} from './kernel-arguments.ts'
export {
  type ClusterMember,
  clientUrl,
  initialClusterText,
  type KvSettings,
  kvEnvironment,
  peerUrl,
} from './kv-environment.ts'
export {
  EnrolmentReply,
  EnrolmentRequest,
  EnrolmentTicket,
  MachineAssignment,
  MachineFacts,
  MachinePlan,
  MachineRecord,
  MachineRole,
  MachineStage,
  MachineState,
  machineStages,
  NextBoot,
  RenewalRequest,
  StageReport,
  StageStatus,
} from './machines.ts'
export { HostName, Mac, normaliseMac, SegmentName } from './network-names.ts'
export {
  Descriptor,
  Digest,
  DockerArchiveManifest,
  ImageConfig,
  ImageIndex,
  ImageLayout,
  ImageManifest,
} from './oci.ts'
export {
  ContainerStatus,
  containersOf,
  PodContainer,
  PodManifest,
  type PodProblem,
  PodStatus,
  parsePod,
  serviceLabel,
} from './pod.ts'
export type { PodAction, Probe } from './pod-actions.ts'
export { type NetworkChoice, NetworkName, networksAnnotation, readPodNetworks } from './pod-networks.ts'
export {
  type AppOption,
  type PodOptions,
  podOptionsAnnotation,
  readPodOptions,
  type SeccompSet,
} from './pod-options.ts'
export type { DnsConfig } from './pod-resolver.ts'
export type { PodConfigMap, PodVolume } from './pod-volumes.ts'
export {
  ChannelAnswer,
  ChannelChange,
  ChannelHalt,
  ChannelRecord,
  compareVersions,
  ReleaseManifest,
  ReleasePart,
  ReleaseVersion,
} from './release.ts'
export {
  MachineStatus,
  RebootTurn,
  ReleaseRecord,
  RolloutGroup,
  RolloutRecord,
  ServiceRecord,
  storeKeys,
} from './store-records.ts'
