import { basename, join } from 'node:path'

/** A port of the host's loopback that leads to a port of the guest. */
export type PortForward = { hostPort: number; guestPort: number }

export type MachineDisk =
  | { kind: 'file'; path: string }
  /** A network block device on a unix socket: `ForgetfulDisk`. */
  | { kind: 'nbd'; socketPath: string }

export type MachineNic =
  /** QEMU's user network: its DHCP, host at 10.0.2.2, port forwards; boots what `bootfile` names over HTTP. */
  | { kind: 'user'; mac: string; bootfile?: string; forwards: PortForward[] }
  /** Our switch. */
  | { kind: 'switch'; mac: string; socketPath: string }
  /** A tap interface of the host, or of a network namespace; boots by DHCP. */
  | { kind: 'tap'; mac: string; interfaceName: string }

export type MachineFirmware =
  | { kind: 'uefi'; codePath: string; varsPath: string }
  /** SeaBIOS, for probes and the oldest hardware. */
  | { kind: 'bios' }

export type MachineSpec = {
  name: string
  uuid: string
  memoryMiB: number
  cpus: number
  accelerator: 'tcg' | 'kvm'
  firmware: MachineFirmware
  disk?: MachineDisk
  /** Further disks, image files; the guest sees them in this order. */
  dataDisks?: readonly string[]
  /** Socket of a TPM 2.0 emulator (swtpm). */
  tpmSocketPath?: string
  /** File that the guest finds in its firmware's configuration as Ignition's config. */
  ignitionConfigPath?: string
  nics: MachineNic[]
  /** Folder for sockets; short, since a unix socket's path has at most 107 bytes. */
  socketFolder: string
  /** Where the serial console is logged. */
  serialLogPath: string
  /** Where what QEMU itself says goes. */
  qemuLogPath: string
  /** Names of virtio-serial ports; each is a unix socket in the socket folder. */
  serialPorts: string[]
  /** Starts from a state saved by `saveState` instead of booting. */
  incomingPath?: string
  /** Runs QEMU in a network namespace (for taps). */
  networkNamespace?: string
}

export const monitorSocket = (spec: MachineSpec): string => join(spec.socketFolder, `${spec.name}.qmp`)
export const serialSocket = (spec: MachineSpec): string => join(spec.socketFolder, `${spec.name}.ttyS0`)
export const portSocket = (spec: Pick<MachineSpec, 'socketFolder' | 'name'>, port: string): string =>
  join(spec.socketFolder, `${spec.name}.${basename(port)}`)

/**
 * The processor of an emulated machine. To the guest's kernel an Intel processor of this age leaks its memory (Meltdown), and it
 * changes page tables at each system call and interrupt, which makes the emulator forget all translations: a third of a start's
 * processor time. One that says it is AMD's does not.
 */
const emulatedCpu = 'Nehalem,vendor=AuthenticAMD'

/**
 * The command line of QEMU. The disk comes before the network in the boot order, so that an empty disk falls
 * through to the network and an installed one does not need it.
 */
export function qemuArguments(spec: MachineSpec): string[] {
  return [
    ['-name', spec.name],
    ['-uuid', spec.uuid],
    ['-machine', 'q35,smm=off,vmport=off,graphics=off'],
    ['-accel', spec.accelerator === 'tcg' ? 'tcg,thread=multi,tb-size=256' : 'kvm'],
    ['-cpu', spec.accelerator === 'tcg' ? emulatedCpu : 'host'],
    ['-smp', String(spec.cpus)],
    ['-m', String(spec.memoryMiB)],
    ['-nodefaults', '-no-user-config'],
    ['-display', 'none'],
    ['-rtc', 'base=utc,clock=host'],
    ['-chardev', socketChardev('serial0', serialSocket(spec), spec.serialLogPath)],
    ['-serial', 'chardev:serial0'],
    ['-chardev', socketChardev('monitor', monitorSocket(spec))],
    ['-mon', 'chardev=monitor,mode=control'],
    ['-device', 'virtio-rng-pci'],
    ...firmwareArguments(spec.firmware),
    ...diskArguments(spec.disk),
    ...(spec.dataDisks ?? []).flatMap(dataDiskArguments),
    ...tpmArguments(spec.tpmSocketPath),
    ...ignitionArguments(spec.ignitionConfigPath),
    ...spec.nics.flatMap((nic, index) => nicArguments(nic, index)),
    ...serialPortArguments(spec),
    ...(spec.incomingPath ? [['-incoming', `exec:cat ${quoteForShell(spec.incomingPath)}`]] : []),
  ].flat()
}

function firmwareArguments(firmware: MachineFirmware): string[][] {
  if (firmware.kind === 'bios') return []
  return [
    ['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${escapeOption(firmware.codePath)}`],
    ['-drive', `if=pflash,unit=1,format=raw,file=${escapeOption(firmware.varsPath)}`],
  ]
}

function tpmArguments(socketPath: string | undefined): string[][] {
  if (socketPath === undefined) return []
  return [
    ['-chardev', `socket,id=tpm0,path=${escapeOption(socketPath)}`],
    ['-tpmdev', 'emulator,id=tpm0,chardev=tpm0'],
    ['-device', 'tpm-crb,tpmdev=tpm0'],
  ]
}

function ignitionArguments(path: string | undefined): string[][] {
  return path === undefined ? [] : [['-fw_cfg', `name=opt/com.coreos/config,file=${escapeOption(path)}`]]
}

function dataDiskArguments(path: string, index: number): string[][] {
  const id = `data${index}`
  return [
    ['-drive', `if=none,id=${id},format=raw,file=${escapeOption(path)},cache=unsafe,discard=unmap`],
    ['-device', `virtio-blk-pci,drive=${id},serial=kiln-${id}`],
  ]
}

function diskArguments(disk: MachineDisk | undefined): string[][] {
  if (!disk) return []
  // An image file never outlives the host's page cache in our use, so the host need not sync it (cache=unsafe);
  // power loss is the business of the disk that forgets, which must see every flush.
  const source =
    disk.kind === 'file'
      ? `file=${escapeOption(disk.path)},cache=unsafe,discard=unmap`
      : `file=nbd:unix:${escapeOption(disk.socketPath)},cache=writeback`
  return [
    ['-drive', `if=none,id=disk0,format=raw,${source}`],
    ['-device', 'virtio-blk-pci,drive=disk0,bootindex=1,serial=kiln-disk'],
  ]
}

function nicArguments(nic: MachineNic, index: number): string[][] {
  const id = `nic${index}`
  const device = (rest: string): string[] => ['-device', `virtio-net-pci,netdev=${id},mac=${nic.mac}${rest}`]
  switch (nic.kind) {
    case 'user': {
      const forwards = nic.forwards.map(
        ({ hostPort, guestPort }) => `,hostfwd=tcp:127.0.0.1:${hostPort}-:${guestPort}`,
      )
      const bootfile = nic.bootfile ? `,bootfile=${escapeOption(nic.bootfile)}` : ''
      return [
        ['-netdev', `user,id=${id}${bootfile}${forwards.join('')}`],
        device(nic.bootfile ? ',bootindex=2' : ',romfile='),
      ]
    }
    case 'switch':
      return [
        ['-netdev', `stream,id=${id},server=off,addr.type=unix,addr.path=${escapeOption(nic.socketPath)}`],
        device(',romfile='),
      ]
    case 'tap':
      return [
        ['-netdev', `tap,id=${id},ifname=${nic.interfaceName},script=no,downscript=no`],
        device(',bootindex=2'),
      ]
  }
}

function serialPortArguments(spec: MachineSpec): string[][] {
  if (spec.serialPorts.length === 0) return []
  return [
    ['-device', 'virtio-serial-pci'],
    ...spec.serialPorts.flatMap((port, index) => [
      ['-chardev', socketChardev(`port${index}`, portSocket(spec, port))],
      ['-device', `virtserialport,chardev=port${index},name=${port}`],
    ]),
  ]
}

function socketChardev(id: string, path: string, logPath?: string): string {
  const log = logPath ? `,logfile=${escapeOption(logPath)},logappend=on` : ''
  return `socket,id=${id},path=${escapeOption(path)},server=on,wait=off${log}`
}

/** A comma ends an option of QEMU, a doubled one is a comma. */
const escapeOption = (value: string): string => value.replaceAll(',', ',,')

const quoteForShell = (value: string): string => `'${value.replaceAll("'", `'\\''`)}'`
