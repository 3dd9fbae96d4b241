import { closeSync, ftruncateSync, openSync } from 'node:fs'
import { copyFile, link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createReleaseKey, signManifest } from '@kiln/pki'
import { ReleaseManifest } from '@kiln/schemas'
import {
  chooseAccelerator,
  EthernetSwitch,
  ForgetfulDisk,
  firmwareFiles,
  freePorts,
  type MachineNic,
  type MachineSpec,
  prepareFirmwareVars,
  SerialLog,
  serialSocket,
  VirtualMachine,
} from '@kiln/vm'
import { BootServerProcess } from './boot-server-process.ts'
import { runOnConsole, type ShellResult } from './console-shell.ts'
import type { StoryContext } from './story.ts'
import { sleep } from './waiting.ts'

/** Memory of a lab's machine with what QEMU needs beside it. */
export const labMemoryMiB = 1_224
const guestMemoryMiB = 1_024
const diskBytes = 6 * 1024 * 1024 * 1024
const signedDays = 30
const reasonMs = 3_000

/** The one machine of a lab; numbers beside those of `kiln up` (docs/reference/seams.md). */
export const labMachine = {
  name: 'solo',
  uuid: '4b494c4e-0000-4000-8000-000000000091',
  bootMac: '52:54:00:4b:00:91',
  clusterMac: '52:54:00:4b:01:91',
} as const

export type LabOptions = {
  /** Folder of the release it boots. */
  image: string
  /** The profile's Ignition config, byte for byte. */
  config?: string
  /** Kernel arguments of the profile; they take precedence over those of the boot server. */
  args?: readonly string[]
  /** File with a config in the firmware's configuration, for platform qemu. */
  ignitionConfigPath?: string
  /** False: no group knows the machine. */
  assigned?: boolean
  /** Image files of further disks, and the socket of a TPM. */
  dataDisks?: readonly string[]
  tpmSocketPath?: string
  disk?: { kind: 'file' } | { kind: 'forgetful'; seed: number }
  /** A tap in a network namespace of the story's; else QEMU's user network and our switch. */
  tap?: { namespace: string; interfaceName: string; hostAddress: string; machineAddress: string }
}

/** A boot server and a single machine of a story's own, closer to the hardware than a cluster of `kiln up`. */
export class MachineLab {
  readonly boot: BootServerProcess
  readonly console: SerialLog
  readonly #folder: string
  readonly #spec: MachineSpec
  readonly #releaseKey: string
  readonly #disk: ForgetfulDisk | undefined
  #vm: VirtualMachine | undefined

  private constructor(at: {
    boot: BootServerProcess
    folder: string
    spec: MachineSpec
    releaseKey: string
    disk: ForgetfulDisk | undefined
  }) {
    this.boot = at.boot
    this.#folder = at.folder
    this.#spec = at.spec
    this.#releaseKey = at.releaseKey
    this.#disk = at.disk
    this.console = new SerialLog(at.spec.serialLogPath)
  }

  /** Makes everything and starts the boot server; the machine is off. All of it ends with the story. */
  static async open(context: StoryContext, options: LabOptions): Promise<MachineLab> {
    const folder = context.scratch
    const ports = await freePorts(3)
    const [storePort, port, tlsPort] = ports as [number, number, number]
    const serialLogPath = join(folder, 'serial.log')
    const bootLog = join(folder, 'boot.log')
    context.watch({ name: labMachine.name, path: serialLogPath })
    context.keep({ name: 'boot.log', path: bootLog })
    context.keep({ name: 'qemu.log', path: join(folder, 'qemu.log') })
    const { privateKey, publicKey } = createReleaseKey()
    const address = options.tap?.machineAddress ?? '10.77.0.91'
    await writeBootData(join(folder, 'boot'), options, address, publicKey, await versionOf(options.image))
    const disk = await openDisk(options, folder)
    if (disk) context.onEnd(() => disk.close())
    const nics = options.tap
      ? [{ kind: 'tap' as const, mac: labMachine.bootMac, interfaceName: options.tap.interfaceName }]
      : await userNetwork(context, folder, { port, storePort })
    const boot = await BootServerProcess.start(
      {
        dataDir: join(folder, 'boot'),
        assetsDir: join(folder, 'assets'),
        host: options.tap?.hostAddress ?? '127.0.0.1',
        port,
        tlsPort,
        guestHost: options.tap?.hostAddress ?? '10.0.2.2',
        storeEndpoints: options.tap ? [] : [`https://127.0.0.1:${storePort}`],
        logPath: bootLog,
        ...(options.tap ? { networkNamespace: options.tap.namespace } : {}),
      },
      context.signal,
    )
    context.onEnd(() => boot.stop())
    const varsPath = join(folder, 'vars.fd')
    prepareFirmwareVars(varsPath)
    const lab = new MachineLab({
      boot,
      folder,
      releaseKey: privateKey,
      disk,
      spec: {
        name: labMachine.name,
        uuid: labMachine.uuid,
        memoryMiB: guestMemoryMiB,
        cpus: 1,
        accelerator: await chooseAccelerator(),
        firmware: { kind: 'uefi', codePath: firmwareFiles.code, varsPath },
        disk: disk
          ? { kind: 'nbd', socketPath: disk.socketPath }
          : { kind: 'file', path: join(folder, 'disk.raw') },
        ...(options.dataDisks ? { dataDisks: options.dataDisks } : {}),
        ...(options.ignitionConfigPath ? { ignitionConfigPath: options.ignitionConfigPath } : {}),
        ...(options.tpmSocketPath ? { tpmSocketPath: options.tpmSocketPath } : {}),
        nics,
        socketFolder: folder,
        serialLogPath,
        qemuLogPath: join(folder, 'qemu.log'),
        serialPorts: ['kiln.report'],
        ...(options.tap ? { networkNamespace: options.tap.namespace } : {}),
      },
    })
    context.onEnd(async () => {
      lab.console.close()
      await lab.pullPlug()
    })
    context.keepJournal({ name: labMachine.name, shell: (command, each) => lab.shell(command, each) })
    await lab.stage(options.image)
    return lab
  }

  /** Puts a release below the boot server's assets, signed. */
  async stage(image: string): Promise<string> {
    const manifest = ReleaseManifest.parse(JSON.parse(await readFile(join(image, 'manifest.json'), 'utf8')))
    const target = join(this.#folder, 'assets/releases', manifest.version)
    await rm(target, { recursive: true, force: true })
    await mkdir(target, { recursive: true })
    for (const { name } of manifest.parts) {
      await link(join(image, name), join(target, name)).catch(() =>
        copyFile(join(image, name), join(target, name)),
      )
    }
    const expiresAt = new Date(Date.now() + signedDays * 86_400_000).toISOString()
    const bytes = JSON.stringify({ ...manifest, expiresAt }, null, 2) + '\n'
    await writeFile(join(target, 'manifest.json'), bytes)
    await writeFile(
      join(target, 'manifest.json.sig'),
      signManifest(Buffer.from(bytes), this.#releaseKey) + '\n',
    )
    return target
  }

  /** Replaces the profile's Ignition config; the boot server sees it by itself. */
  async configure(config: string): Promise<void> {
    await writeFile(join(this.#folder, 'boot/ignition/solo.ign'), config)
  }

  async publish(version: string): Promise<void> {
    await this.boot.operate('PUT', '/v1/channels/solo', { version })
  }

  async powerOn(): Promise<void> {
    this.#disk?.restorePower()
    this.#vm = await VirtualMachine.start(this.#spec)
  }

  /** The plug is pulled; a disk that forgets loses what it was not told to keep. Answers what was lost. */
  async pullPlug(): Promise<string> {
    const cut = this.#vm?.running ? this.#disk?.cutPower() : undefined
    await this.#vm?.powerOff()
    if (!cut) return 'nothing'
    return `${Math.round(cut.unsyncedBytes / 1024)} KiB unsynced: ${cut.dropped} writes dropped, ${cut.torn} torn, ${cut.kept} kept`
  }

  get unsyncedBytes(): number {
    return this.#disk?.statistics().unsyncedBytes ?? 0
  }

  /** Waits for a line of the console from `since` on; a machine that says it failed ends the wait. */
  async seen(
    pattern: RegExp,
    options: { timeoutMs: number; since?: number; signal: AbortSignal; failOn?: RegExp },
  ): Promise<string> {
    try {
      return await this.console.waitFor(pattern, { failOn: /status=failed/, ...options })
    } catch (error) {
      // The reason is the line after the one that says it failed.
      if (!options.signal.aborted) await sleep(reasonMs, options.signal)
      throw error
    }
  }

  async shell(command: string, options: { signal: AbortSignal; timeoutMs?: number }): Promise<ShellResult> {
    return await runOnConsole(serialSocket(this.#spec), command, { timeoutMs: 60_000, ...options })
  }
}

async function versionOf(image: string): Promise<string> {
  return ReleaseManifest.parse(JSON.parse(await readFile(join(image, 'manifest.json'), 'utf8'))).version
}

async function writeBootData(
  dataDir: string,
  options: LabOptions,
  address: string,
  releaseKey: string,
  version: string,
): Promise<void> {
  const { bootMac, clusterMac, name } = labMachine
  const isAssigned = options.assigned ?? true
  const kiln = {
    role: 'store',
    expected: 1,
    addresses: isAssigned ? { [bootMac]: address } : {},
    names: isAssigned ? { [bootMac]: name } : {},
    ...(options.tap ? { clusterInterface: 'boot' } : { clusterMacs: { [bootMac]: clusterMac } }),
  }
  const files: Record<string, string> = {
    'groups/solo.json': JSON.stringify({ id: 'solo', profile: 'solo', metadata: { kiln } }),
    'profiles/solo.json': JSON.stringify({
      id: 'solo',
      ignition_id: 'solo.ign',
      kiln: { release: version, args: options.args ?? [] },
    }),
    'ignition/solo.ign': options.config ?? JSON.stringify({ ignition: { version: '3.4.0' } }),
    'release-keys/lab.pub': releaseKey,
  }
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(dataDir, path)), { recursive: true })
    await writeFile(join(dataDir, path), text)
  }
}

async function openDisk(options: LabOptions, folder: string): Promise<ForgetfulDisk | undefined> {
  const path = join(folder, 'disk.raw')
  if (options.disk?.kind === 'forgetful') {
    return await ForgetfulDisk.open({
      path,
      sizeBytes: diskBytes,
      socketPath: join(folder, 'disk'),
      seed: options.disk.seed,
    })
  }
  makeDisk(path, diskBytes)
  return undefined
}

/** An empty disk in a sparse file. Answers its path. */
export function makeDisk(path: string, sizeBytes: number): string {
  const file = openSync(path, 'w')
  ftruncateSync(file, sizeBytes)
  closeSync(file)
  return path
}

/** NIC 0 in QEMU's own network, NIC 1 on a switch that nobody else is at. */
async function userNetwork(
  context: StoryContext,
  folder: string,
  { port, storePort }: { port: number; storePort: number },
): Promise<MachineNic[]> {
  const socketPath = join(folder, 'switch')
  const lan = await EthernetSwitch.listen({ path: socketPath, nodes: {} })
  context.onEnd(() => lan.close())
  return [
    {
      kind: 'user',
      mac: labMachine.bootMac,
      bootfile: `http://10.0.2.2:${port}/boot.ipxe`,
      forwards: [{ hostPort: storePort, guestPort: 2379 }],
    },
    { kind: 'switch', mac: labMachine.clusterMac, socketPath },
  ]
}
