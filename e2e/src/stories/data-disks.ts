import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { runCommand } from '../kiln-command.ts'
import { labMemoryMiB, MachineLab, makeDisk } from '../machine-lab.ts'
import { mountUnit } from '../mount-unit.ts'
import { startBeside } from '../side-process.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'

const diskBytes = 700 * 1024 * 1024
/** Small enough for a machine whose memory holds its own image while the volumes are made. */
const quickKey = ['--pbkdf-memory', '65536', '--pbkdf-force-iterations', '4']

/** Tang and TPM need a minute of an emulated processor, and the machine is ready before they are done. */
const mountMs = 300_000

/** Where the config mounts what. */
const mounts = [
  { path: '/var/lib/mirror', device: '/dev/md/mirror', format: 'xfs' },
  { path: '/var/lib/secret', device: '/dev/mapper/secret', format: 'btrfs' },
  { path: '/var/lib/bound', device: '/dev/mapper/bound', format: 'ext4' },
] as const

export const dataDisks: Story = {
  name: 'data-disks',
  summary:
    'RAID 1 with xfs, LUKS with a key file and btrfs, LUKS by Tang and TPM with ext4: made once, there at every boot',
  budgetSeconds: 360,
  timeoutSeconds: 1_300,
  needs: ['vms', 'root'],
  packages: ['tang-common', 'swtpm'],
  memoryMiB: labMemoryMiB,
  async run(context) {
    const { signal, say, figure } = context
    const disks = [1, 2, 3].map((number) => makeDisk(join(context.scratch, `data${number}.raw`), diskBytes))
    const tang = await startTang(context)
    const lab = await MachineLab.open(context, {
      image: await context.image('0.1.0'),
      config: JSON.stringify(configWith(tang)),
      dataDisks: disks,
      tpmSocketPath: await startTpm(context),
    })
    await lab.powerOn()
    const began = performance.now()
    await lab.seen(/MARK:ready /, { timeoutMs: 500_000, signal })
    figure('install', `${Math.round((performance.now() - began) / 1000)} s`)
    await allMounted(lab, signal)
    say('all is mounted after the install')

    for (const { path } of mounts) await lab.shell(`echo kept >${path}/written; sync`, { signal })
    const { output } = await lab.shell('mdadm --detail /dev/md/mirror | grep -c "active sync"', { signal })
    expect(output.trim() === '2', `the array has two active members: ${output}`)
    const mark = lab.console.mark
    await lab.shell('systemctl reboot', { signal }).catch(() => undefined)
    const again = performance.now()
    await lab.seen(/MARK:ready /, { timeoutMs: 400_000, since: mark, signal })
    figure('next boot', `${Math.round((performance.now() - again) / 1000)} s`)
    await allMounted(lab, signal)
    for (const { path } of mounts) {
      const held = await lab.shell(`cat ${path}/made ${path}/written`, { signal })
      expect(/made by the config\s+kept/.test(held.output), `${path} holds what it held: ${held.output}`)
    }
    const failed = await lab.shell('systemctl --failed --no-legend --plain --no-pager', { signal })
    expect(failed.output.trim() === '', `no unit failed: ${failed.output}`)
  },
}

async function allMounted(lab: MachineLab, signal: AbortSignal): Promise<void> {
  for (const { path, device, format } of mounts) {
    const question = `realpath $(findmnt -rno SOURCE ${path}) ${device} && findmnt -rno FSTYPE ${path}`
    const answer = await until(
      `${path} is mounted`,
      { timeoutMs: mountMs, signal, intervalMs: 5_000 },
      async () => {
        const { code, output } = await lab.shell(question, { signal })
        return code === 0 ? output.trim() : undefined
      },
    )
    const [mounted, wanted, type] = answer.split(/\s+/)
    expect(mounted === wanted && type === format, `${path} is ${device} with ${format}: ${answer}`)
  }
}

/** The config of the machine: what an operator would write, as Ignition takes it. */
function configWith(tang: { url: string; thumbprint: string }): object {
  const partition = (label: string, sizeMiB = 0): object => ({ label, sizeMiB })
  const part = (label: string): string => `/dev/disk/by-partlabel/${label}`
  return {
    ignition: { version: '3.4.0' },
    storage: {
      disks: [
        { device: '/dev/vdb', wipeTable: true, partitions: [partition('mirror-1')] },
        { device: '/dev/vdc', wipeTable: true, partitions: [partition('mirror-2')] },
        {
          device: '/dev/vdd',
          wipeTable: true,
          partitions: [partition('secret', 300), partition('bound', 300)],
        },
      ],
      raid: [{ name: 'mirror', level: 'raid1', devices: [part('mirror-1'), part('mirror-2')] }],
      luks: [
        { name: 'secret', device: part('secret'), wipeVolume: true, options: quickKey },
        {
          name: 'bound',
          device: part('bound'),
          wipeVolume: true,
          options: quickKey,
          clevis: { tang: [tang], tpm2: true, threshold: 2 },
        },
      ],
      filesystems: mounts.map(({ device, format, path }) => ({ device, format, path, wipeFilesystem: true })),
      files: mounts.map(({ path }) => ({
        path: `${path}/made`,
        contents: { source: 'data:,made%20by%20the%20config%0A' },
      })),
    },
    systemd: { units: mounts.map((each) => mountUnit({ ...each, remote: each.path === '/var/lib/bound' })) },
  }
}

/** Debian's Tang: one process a connection, as inetd starts it. */
async function startTang(context: StoryContext): Promise<{ url: string; thumbprint: string }> {
  const keys = join(context.scratch, 'tang')
  await mkdir(keys)
  await runCommand('/usr/libexec/tangd-keygen', [keys], { signal: context.signal })
  const running = new Set<ChildProcess>()
  const server = createServer((socket) => {
    const child = spawn('/usr/libexec/tangd', [keys], { stdio: ['pipe', 'pipe', 'ignore'] })
    running.add(child)
    child.once('close', () => running.delete(child))
    socket.pipe(child.stdin!).on('error', () => socket.destroy())
    child.stdout!.pipe(socket).on('error', () => child.kill())
    socket.once('close', () => child.kill())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  context.onEnd(async () => {
    for (const child of running) child.kill()
    await new Promise((resolve) => server.close(resolve))
  })
  const address = server.address()
  expect(address !== null && typeof address === 'object', 'Tang listens')
  return { url: `http://10.0.2.2:${address.port}`, thumbprint: await signingKey(keys) }
}

/** Tang names its keys' files by their thumbprints. */
async function signingKey(folder: string): Promise<string> {
  for (const name of await readdir(folder)) {
    const key = JSON.parse(await readFile(join(folder, name), 'utf8')) as { key_ops?: string[] }
    if (key.key_ops?.includes('sign')) return name.replace(/\.jwk$/, '')
  }
  throw new Error('tangd-keygen made no signing key')
}

/** A TPM 2.0 of the machine's own; answers its socket. */
async function startTpm(context: StoryContext): Promise<string> {
  const state = join(context.scratch, 'tpm')
  await mkdir(state)
  const socketPath = join(state, 'socket')
  startBeside(context, 'swtpm', [
    ...(['swtpm', 'socket', '--tpm2'] as const),
    ...['--tpmstate', `dir=${state}`, '--ctrl', `type=unixio,path=${socketPath}`],
  ])
  await until('the TPM listens', { timeoutMs: 10_000, signal: context.signal, intervalMs: 50 }, async () =>
    (await readdir(state)).includes('socket') ? true : undefined,
  )
  return socketPath
}
