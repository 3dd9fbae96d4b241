import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { ForgetfulDisk } from './forgetful-disk.ts'
import { findProgram } from './host.ts'
import { isAlive } from './process-identity.ts'
import { type MachineSpec, qemuArguments } from './qemu-arguments.ts'
import { VirtualMachine } from './virtual-machine.ts'

const searchPath = process.env['PATH'] ?? ''
const noQemu = !findProgram('qemu-system-x86_64', searchPath)
if (noQemu) console.log('skipped: tests that start a machine, since this host has no qemu-system-x86_64')
const noQemuImg = !findProgram('qemu-img', searchPath)
if (noQemuImg) console.log('skipped: the NBD cross-check, since this host has no qemu-img')

function spec(overrides: Partial<MachineSpec> = {}): MachineSpec {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-vm-'))
  return {
    name: 'probe',
    uuid: '4b494c4e-0000-4000-8000-000000000001',
    memoryMiB: 64,
    cpus: 1,
    accelerator: 'tcg',
    firmware: { kind: 'bios' },
    nics: [],
    socketFolder: folder,
    serialLogPath: join(folder, 'serial.log'),
    qemuLogPath: join(folder, 'qemu.log'),
    serialPorts: ['kiln.control'],
    ...overrides,
  }
}

test('the disk comes before the network in the boot order, and commas in paths are escaped', () => {
  const args = qemuArguments(
    spec({
      disk: { kind: 'file', path: '/a,b' },
      nics: [
        { kind: 'user', mac: '52:54:00:4b:00:01', bootfile: 'http://10.0.2.2:1/boot.ipxe', forwards: [] },
        { kind: 'switch', mac: '52:54:00:4b:01:01', socketPath: '/s' },
      ],
    }),
  ).join(' ')
  expect(args).toContain('file=/a,,b,')
  expect(args).toContain('drive=disk0,bootindex=1')
  expect(args).toContain('netdev=nic0,mac=52:54:00:4b:00:01,bootindex=2')
  expect(args).toContain('netdev=nic1,mac=52:54:00:4b:01:01,romfile=')
})

test('a socket path that is too long is refused before anything starts', async () => {
  const socketFolder = join(tmpdir(), 'x'.repeat(120))
  await expect(VirtualMachine.start(spec({ socketFolder }))).rejects.toMatchObject({
    code: 'SOCKET_PATH_LONG',
  })
  expect(existsSync(socketFolder)).toBe(false)
})

test.skipIf(noQemu)('a machine starts, speaks on its console, pauses, saves its state and ends', async () => {
  const first = spec()
  const machine = await VirtualMachine.start(first)
  try {
    await machine.console.waitFor(/SeaBIOS/, { timeoutMs: 50_000 })
    expect(isAlive(machine.identity)).toBe(true)
    expect(machine.usage()!.rssMiB).toBeGreaterThan(1)
    const state = join(first.socketFolder, 'state')
    await machine.saveState(state)
    await machine.powerOff()
    expect(isAlive(machine.identity)).toBe(false)
    const second = await VirtualMachine.start({ ...first, incomingPath: state })
    await second.resume()
    await second.powerOff()
  } finally {
    await machine.powerOff()
  }
})

test.skipIf(noQemu)('a machine that cannot start says why', async () => {
  const broken = spec({ disk: { kind: 'file', path: '/nonexistent/disk.raw' } })
  await expect(VirtualMachine.start(broken)).rejects.toMatchObject({
    code: 'VM_START',
    cause: { message: expect.stringContaining('/nonexistent/disk.raw') },
  })
})

test.skipIf(noQemuImg)('the disk that forgets speaks NBD as QEMU understands it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-disk-'))
  const disk = await ForgetfulDisk.open({
    path: join(folder, 'disk.raw'),
    sizeBytes: 4 * 1024 * 1024,
    socketPath: join(folder, 'nbd'),
    seed: 1,
  })
  const io = async (...commands: string[]): Promise<string> => {
    const args = commands.flatMap((command) => ['-c', command])
    const { stdout } = await promisify(execFile)('qemu-io', ['-f', 'raw', ...args, `nbd:unix:${folder}/nbd`])
    return stdout
  }
  await io('write -P 0x5a 0 1M', 'flush')
  expect(await io('read -P 0x5a 0 1M')).toMatch(/read 1048576\/1048576/)
  expect(disk.statistics()).toMatchObject({ unsyncedBytes: 0 })
  expect(disk.statistics().flushes).toBeGreaterThan(0)
  disk.cutPower()
  disk.restorePower()
  expect(await io('read -P 0x5a 0 1M')).toMatch(/read 1048576\/1048576/)
  await disk.close()
  expect(readFileSync(join(folder, 'disk.raw'))[0]).toBe(0x5a)
})
