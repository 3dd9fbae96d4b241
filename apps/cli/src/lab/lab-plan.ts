import { operatorPort } from '@kiln/runtime-api'
import { Fault } from '@kiln/service'
import type { MachineSpec } from '@kiln/vm'
import type { LabMachine, LabRecord, StateFolder } from './state-folder.ts'

/** All machines of a virtual cluster are store members, and a store has at most this many. */
export const machinesMax = 5

/** Smallest memory in which an install was seen to succeed. */
export const memoryMiBMin = 768

/** Disk of a machine, sparse (docs/reference/seams.md). */
export const diskBytes = 6 * 1024 * 1024 * 1024

const twoDigits = (index: number): string => index.toString().padStart(2, '0')

/** Names, MACs, UUIDs and addresses of machine `index` (from 1), as docs/reference/seams.md has them. */
export function planMachine(index: number, storePort: number): LabMachine {
  return {
    name: `node${index}`,
    uuid: `4b494c4e-0000-4000-8000-0000000000${twoDigits(index)}`,
    bootMac: `52:54:00:4b:00:${twoDigits(index)}`,
    clusterMac: `52:54:00:4b:01:${twoDigits(index)}`,
    address: `10.77.0.${10 + index}`,
    storePort,
  }
}

export function checkNodes(nodes: number): void {
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > machinesMax) {
    throw new Fault('USAGE', `--nodes must be a whole number from 1 to ${machinesMax}`)
  }
}

export function checkSize(nodes: number, memoryMiB: number): void {
  checkNodes(nodes)
  if (!Number.isInteger(memoryMiB) || memoryMiB < memoryMiBMin) {
    throw new Fault('USAGE', `--memory must be a whole number of MiB, at least ${memoryMiBMin}`)
  }
}

/** The virtual machine behind a machine of the cluster. */
export function machineSpec(at: {
  state: StateFolder
  lab: LabRecord
  machine: LabMachine
  switchSocket: string
  firmwareCode: string
}): MachineSpec {
  const paths = at.state.machine(at.machine.name)
  return {
    name: at.machine.name,
    uuid: at.machine.uuid,
    memoryMiB: at.lab.memoryMiB,
    cpus: at.lab.cpus,
    accelerator: at.lab.accelerator,
    firmware: { kind: 'uefi', codePath: at.firmwareCode, varsPath: paths.vars },
    disk: { kind: 'file', path: paths.disk },
    nics: [
      {
        kind: 'user',
        mac: at.machine.bootMac,
        bootfile: `http://10.0.2.2:${at.lab.bootPort}/boot.ipxe`,
        forwards: [
          { hostPort: at.machine.storePort, guestPort: 2379 },
          ...(at.machine.runtimePort === undefined
            ? []
            : [{ hostPort: at.machine.runtimePort, guestPort: operatorPort }]),
        ],
      },
      { kind: 'switch', mac: at.machine.clusterMac, socketPath: at.switchSocket },
    ],
    socketFolder: at.state.sockets,
    serialLogPath: paths.serialLog,
    qemuLogPath: paths.qemuLog,
    serialPorts: ['kiln.report', 'kiln.control'],
  }
}
