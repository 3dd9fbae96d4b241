export { type Badness, findBadness } from './console-badness.ts'
export {
  type ConsoleMark,
  impliedStage,
  type MachineStage,
  machineStages,
  parseMark,
  plainLine,
} from './console-markers.ts'
export { EthernetSwitch, type SwitchStatistics } from './ethernet-switch.ts'
export { ForgetfulDisk, type PowerCut } from './forgetful-disk.ts'
export {
  availableMemoryMiB,
  checkDisk,
  checkMemory,
  checkPort,
  chooseAccelerator,
  findProgram,
  firmwareFiles,
  freePorts,
  missingMachinePackages,
  prepareFirmwareVars,
} from './host.ts'
export { askLab, LabControlServer, LabRequest, LabStatus, labStatus } from './lab-control.ts'
export {
  endProcess,
  identifyProcess,
  isAlive,
  type ProcessIdentity,
  type ProcessUsage,
  processUsage,
  signalProcess,
} from './process-identity.ts'
export {
  type MachineDisk,
  type MachineFirmware,
  type MachineNic,
  type MachineSpec,
  type PortForward,
  portSocket,
  serialSocket,
} from './qemu-arguments.ts'
export { SerialLog } from './serial-log.ts'
export { clusterSocketFolder } from './socket-folder.ts'
export { bothWays, everyNode, isolation, type LinkFault, type LinkFaultRule } from './switch-faults.ts'
export { VirtualMachine } from './virtual-machine.ts'
