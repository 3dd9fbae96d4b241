import { spawn } from 'node:child_process'
import { accessSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Case } from './blackbox-case.ts'
import type { CaseResult } from './case-result.ts'

/** Programs of the host that the runner and the stages use, and the Debian package of each. */
const hostPrograms: Readonly<Record<string, string>> = {
  '/usr/sbin/sfdisk': 'fdisk',
  '/usr/bin/partx': 'util-linux',
  '/usr/sbin/losetup': 'mount',
  '/usr/sbin/mkfs.ext4': 'e2fsprogs',
  '/usr/sbin/mkfs.vfat': 'dosfstools',
  '/usr/sbin/mkfs.xfs': 'xfsprogs',
  '/usr/sbin/mkfs.btrfs': 'btrfs-progs',
  '/usr/bin/bunzip2': 'bzip2',
  '/usr/sbin/ip': 'iproute2',
}

/** Disks are sparse files that nobody needs after the run: no disk of the host has to write them. */
const memory = '/dev/shm'

export type BlackboxFile = { name: string; cases: Case[] }

export type BlackboxOptions = {
  full: boolean
  /** Paths of fs-images.json and served-fixtures.json. */
  data: { images: string; served: string }
}

/**
 * Runs the end-to-end cases: disks on loop devices, every stage of Ignition, then a look at what is there. All of it in
 * mount and network namespaces of its own, so that neither mounts nor ports meet those of the host.
 */
export async function* runBlackbox(
  files: BlackboxFile[],
  options: BlackboxOptions,
): AsyncIterable<CaseResult> {
  if (files.every(({ cases }) => cases.length === 0)) return
  const unable = hostProblem()
  if (unable !== undefined) {
    for (const { cases } of files) {
      for (const { name } of cases) yield { name, outcome: 'skipped', detail: unable }
    }
    return
  }
  const scratch = mkdtempSync(join(exists(memory) ? memory : tmpdir(), 'kiln-blackbox-'))
  const runner = join(import.meta.dirname, 'blackbox-runner.ts')
  const namespaces = ['--mount', '--net', '--fork', '--kill-child=TERM']
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', runner]
  const child = spawn('unshare', [...namespaces, ...node], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(JSON.stringify({ files, scratch, ...options }))
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve(code))
  })
  try {
    for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line) as CaseResult
    const code = await ended
    if (code !== 0) yield { name: 'black box', outcome: 'failed', detail: `the runner ended with ${code}` }
  } finally {
    child.kill('SIGTERM')
    await ended
    rmSync(scratch, { recursive: true, force: true })
  }
}

function hostProblem(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root: disks are loop devices'
  const missing = Object.entries(hostPrograms).filter(([path]) => !exists(path))
  if (missing.length === 0) return undefined
  return `needs Debian packages that are not installed: ${missing.map(([, name]) => name).join(' ')}`
}

function exists(path: string): boolean {
  try {
    accessSync(path)
    return true
  } catch {
    return false
  }
}
