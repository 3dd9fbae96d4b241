import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { appendFile, mkdir, open, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault, type Log } from '@kiln/service'
import { programCommand } from '../programs.ts'
import { chooseBootEntry, countedName } from './boot-entries.ts'
import { readIpxeScript } from './ipxe-script.ts'
import { refusePods } from './refused-pods.ts'

export type SimulatedMachineSettings = {
  folder: string
  mac: string
  uuid: string
  bootUrl: string
}

const slotBytes = 320 * 1024 * 1024
const requestTimeoutMs = 10_000
const partBytesMax = 64 * 1024 * 1024

/**
 * A machine without hardware: firmware, iPXE, boot loader and kernel are played, Ignition and update daemon are the
 * real programs, in a folder. Runs until it is stopped; a reboot is another turn of the loop.
 */
export async function runSimulatedMachine(
  settings: SimulatedMachineSettings,
  log: Log,
  stopping: AbortSignal,
): Promise<void> {
  const paths = machinePaths(settings.folder)
  await mkdir(join(paths.root, 'run'), { recursive: true })
  while (!stopping.aborted) {
    await say(paths.console, 'UEFI firmware (simulated)')
    await writeFile(paths.bootId, randomUUID() + '\n')
    await writeFile(paths.uptime, '1.00 1.00\n')
    try {
      const installed = await bootFromDisk(paths)
      if (!installed) await bootFromNetwork(settings, paths, stopping)
      await runInstalled(settings, paths, log, stopping)
    } catch (error) {
      if (stopping.aborted) return
      const reason = error instanceof Fault ? `${error.code}: ${error.message}` : (error as Error).message
      log.error({ error }, 'boot failed, trying again')
      await say(paths.console, `kiln: boot failed: ${reason}`)
      await sleep(5_000, undefined, { signal: stopping }).catch(() => undefined)
    }
  }
}

type MachinePaths = ReturnType<typeof machinePaths>

function machinePaths(folder: string) {
  const root = join(folder, 'root')
  return {
    folder,
    root,
    esp: join(root, 'boot'),
    disk: join(folder, 'disk.raw'),
    slotA: join(folder, 'slot-a.img'),
    slotB: join(folder, 'slot-b.img'),
    console: join(folder, 'serial.log'),
    kernelArguments: join(folder, 'cmdline'),
    bootId: join(folder, 'boot-id'),
    uptime: join(folder, 'uptime'),
    reboot: join(folder, 'reboot-wanted'),
    image: join(folder, 'usr.img'),
  }
}

/** What firmware and systemd-boot do: take an entry, count the try, start its kernel. False without a boot loader. */
async function bootFromDisk(paths: MachinePaths): Promise<boolean> {
  const entries = join(paths.esp, 'loader/entries')
  const needed = [
    join(paths.root, 'var/lib/kiln/installed'),
    entries,
    join(paths.esp, 'EFI/BOOT/BOOTX64.EFI'),
  ]
  if (!needed.every((path) => existsSync(path))) return false
  const entry = chooseBootEntry(readdirSync(entries))
  if (!entry) return false
  const name = countedName(entry)
  if (name !== entry.name) renameSync(join(entries, entry.name), join(entries, name))
  const options = /^options (.*)$/m.exec(readFileSync(join(entries, name), 'utf8'))?.[1] ?? ''
  await writeFile(paths.kernelArguments, options + '\n')
  await say(paths.console, `systemd-boot (simulated): ${name}`)
  await mark(paths, 'kernel', 'done')
  return true
}

/** What iPXE and the initramfs do: follow scripts to a kernel, fetch the image, run Ignition. */
async function bootFromNetwork(
  settings: SimulatedMachineSettings,
  paths: MachinePaths,
  stopping: AbortSignal,
): Promise<void> {
  const labels = { mac: settings.mac, uuid: settings.uuid, buildarch: 'x86_64', ip: '10.0.2.15' }
  let url = `${settings.bootUrl}/boot.ipxe`
  await say(paths.console, 'iPXE initialising devices (simulated)')
  for (;;) {
    const action = readIpxeScript((await fetchBytes(url)).toString('utf8'), labels, url)
    if (action.kind === 'exit') throw new Fault('NO_BOOT_DEVICE', 'iPXE left to a disk that is empty')
    if (action.kind === 'chain') {
      if (action.afterSeconds > 0) await say(paths.console, `iPXE waits ${action.afterSeconds} s`)
      await sleep(action.afterSeconds * 1000, undefined, { signal: stopping })
      url = action.url
      continue
    }
    for (const part of [action.kernel, ...action.initrds]) await fetchBytes(part)
    await writeFile(paths.kernelArguments, action.kernelArguments + '\n')
    await mark(paths, 'kernel', 'done')
    break
  }
  const words = new Map(
    readFileSync(paths.kernelArguments, 'utf8')
      .trim()
      .split(/\s+/)
      .map((word) => [word.split('=')[0]!, word.slice(word.indexOf('=') + 1)]),
  )
  const image = await fetchBytes(words.get('kiln.usr.url') ?? '')
  if (image.length !== Number(words.get('kiln.usr.size'))) {
    throw new Fault('IMAGE_INCOMPLETE', `the image has ${image.length} bytes, not kiln.usr.size`)
  }
  await writeFile(paths.image, image)
  await ignite(paths, stopping)
  for (const slot of [paths.slotA, paths.slotB]) await makeSparse(slot, slotBytes)
  await writeFile(paths.slotA, image, { flag: 'r+' })
}

async function ignite(paths: MachinePaths, stopping: AbortSignal): Promise<void> {
  const { command, args } = programCommand('kiln-ignition')
  const child = spawn(
    command,
    [
      ...args,
      ...['--platform', 'metal', '--stage', 'all', '--root', paths.root],
      ...['--cmdline', paths.kernelArguments, '--disk-image', paths.disk, '--image', paths.image],
      ...['--config-cache', join(paths.folder, 'ignition.json')],
      ...['--state-file', join(paths.folder, 'ignition.state')],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], signal: stopping },
  )
  child.once('error', () => undefined)
  copyToConsole(child, paths)
  const code = await exitOf(child)
  if (code !== 0) throw new Fault('IGNITION_FAILED', `kiln-ignition ended with ${code}`)
}

/** From systemd on: the update daemon runs until it wants a reboot, or the machine is switched off. */
async function runInstalled(
  settings: SimulatedMachineSettings,
  paths: MachinePaths,
  log: Log,
  stopping: AbortSignal,
): Promise<void> {
  await mark(paths, 'switch-root', 'done')
  await mark(paths, 'units', 'running')
  rmSync(paths.reboot, { force: true })
  const etc = join(paths.root, 'etc/kiln')
  const { command, args } = programCommand('kiln-update')
  const state = join(paths.root, 'var/lib/kiln/update')
  const runDir = join(paths.root, 'run/kiln')
  for (const folder of [state, runDir]) await mkdir(folder, { recursive: true })
  const child = spawn(
    command,
    [
      ...args,
      ...['--machine-file', join(etc, 'machine.json'), '--pki-dir', join(etc, 'pki')],
      ...['--release-keys-dir', join(etc, 'release-keys'), '--state-dir', state, '--run-dir', runDir],
      ...['--esp-dir', paths.esp, '--slot-a', paths.slotA, '--slot-b', paths.slotB],
      ...['--kernel-arguments-file', paths.kernelArguments, '--boot-id-file', paths.bootId],
      ...['--uptime-file', paths.uptime, '--console-file', paths.console],
      ...['--installed-file', join(paths.root, 'var/lib/kiln/installed')],
      ...['--reboot-command', `touch '${paths.reboot}'`, '--health-units', '', '--runtime-socket', ''],
      ...['--poll-seconds', '0.5'],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  child.once('error', () => undefined)
  copyToConsole(child, paths)
  const exited = exitOf(child)
  const ended = new AbortController()
  void exited.then(() => ended.abort())
  const pods = refusePods({ root: paths.root, signal: AbortSignal.any([stopping, ended.signal]) }).catch(
    (error: unknown) => log.warn({ error }, 'pods were not refused'),
  )
  while (!stopping.aborted && !ended.signal.aborted && !existsSync(paths.reboot)) {
    await sleep(200, undefined, { signal: stopping }).catch(() => undefined)
  }
  const rebooting = existsSync(paths.reboot)
  child.kill('SIGTERM')
  const code = await exited
  ended.abort()
  await pods
  if (rebooting || stopping.aborted) return
  throw new Fault('UPDATE_DAEMON_ENDED', `kiln-update of ${settings.mac} ended with ${code}`)
}

function exitOf(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(code ?? signal ?? 'nothing'))
    child.once('error', (error) => resolve(error.message))
  })
}

function copyToConsole(child: ChildProcess, paths: MachinePaths): void {
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => void appendFile(paths.console, chunk))
  }
}

async function fetchBytes(url: string): Promise<Buffer> {
  let answer: Response
  try {
    answer = await fetch(url, { signal: AbortSignal.timeout(requestTimeoutMs) })
  } catch (cause) {
    throw new Fault('BOOT_UNREACHABLE', `nobody answers ${url}`, { cause })
  }
  if (!answer.ok) throw new Fault('BOOT_REFUSED', `${url} is answered with ${answer.status}`)
  const bytes = Buffer.from(await answer.arrayBuffer())
  if (bytes.length > partBytesMax)
    throw new Fault('BOOT_REFUSED', `${url} is too large for a simulated machine`)
  return bytes
}

async function makeSparse(path: string, sizeBytes: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await (await open(path, 'a')).close()
  await truncate(path, sizeBytes)
}

const say = (console: string, line: string): Promise<void> => appendFile(console, line + '\n')

const mark = (paths: MachinePaths, stage: string, status: string): Promise<void> =>
  say(paths.console, `MARK:${stage} uptime=1.00 status=${status}`)
