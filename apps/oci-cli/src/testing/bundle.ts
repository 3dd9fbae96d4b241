import { spawnSync } from 'node:child_process'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildCommand } from './build-command.ts'

/** `id` is the user and group to run as; a variable that is undefined is left out. */
type Options = { cwd?: string; input?: string; env?: Record<string, string | undefined>; id?: number }
export type Outcome = { code: number | null; out: string; err: string }
type Document = { [name: string]: unknown }
export type Changes = {
  process?: Document
  linux?: Document
  mounts?: Document[]
  hooks?: Document
  root?: Document
}

/** Namespaces need root, and so does this: undefined is fine, else the reason for a skip. */
export const unable = process.geteuid?.() === 0 ? undefined : 'making namespaces needs root'

/** A build of kiln-oci with a state folder of its own, and bundles whose /usr is the host's. */
export async function prepare() {
  const base = mkdtempSync(join(tmpdir(), 'kiln-oci-test-'))
  const command = await buildCommand(base)
  const root = join(base, 'state')
  let bundles = 0
  const oci = (args: string[], options: Options = {}): Outcome =>
    execute(command, ['--root', root, ...args], options)
  /** Any program, as `oci` runs the command: with its output and a deadline. */
  const execute = (program: string, args: string[], options: Options = {}): Outcome => {
    // Files rather than pipes: a created container keeps them open, and spawnSync waits for the end of a pipe.
    const files = ['out', 'err'].map((name) => join(base, name))
    const [out, err] = files.map((file) => openSync(file, 'w'))
    const done = spawnSync(program, args, {
      cwd: options.cwd ?? '/',
      env: { ...process.env, ...options.env },
      ...(options.id !== undefined && { uid: options.id, gid: options.id }),
      input: options.input ?? '',
      stdio: ['pipe', out!, err!],
      timeout: 30_000,
    })
    closeSync(out!)
    closeSync(err!)
    return { code: done.status, out: readFileSync(files[0]!, 'utf8'), err: readFileSync(files[1]!, 'utf8') }
  }
  const bundle = (script: string, changes: Changes = {}): string => {
    const folder = join(base, `b${++bundles}`)
    for (const name of ['usr', 'proc', 'dev', 'tmp', 'etc', 'sys', 'mnt'])
      mkdirSync(join(folder, 'rootfs', name), { recursive: true })
    for (const name of ['bin', 'lib', 'lib64', 'sbin'])
      symlinkSync(`usr/${name}`, join(folder, 'rootfs', name))
    writeFileSync(join(folder, 'config.json'), JSON.stringify(document(script, changes)))
    return folder
  }
  return { base, command, root, oci, execute, bundle }
}

function document(script: string, changes: Changes): Document {
  return {
    ociVersion: '1.2.0',
    root: { path: 'rootfs', ...changes.root },
    process: {
      args: ['/bin/sh', '-c', script],
      env: ['PATH=/bin'],
      cwd: '/',
      user: { uid: 0, gid: 0 },
      ...changes.process,
    },
    mounts: [
      { destination: '/usr', type: 'bind', source: '/usr', options: ['rbind', 'ro'] },
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      ...(changes.mounts ?? []),
    ],
    ...(changes.hooks && { hooks: changes.hooks }),
    linux: {
      namespaces: ['pid', 'mount', 'network', 'ipc', 'uts'].map((type) => ({ type })),
      ...changes.linux,
    },
  }
}

/** What a container could leave behind: mounts below the folder, and its folders and groups. */
export function leftovers(base: string, root: string, id: string): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(base))
  const state = readdirSync(root).filter((name) => name === id)
  const groups = readdirSync('/sys/fs/cgroup').flatMap((name) => {
    try {
      return readdirSync(join('/sys/fs/cgroup', name)).filter((child) => child === id)
    } catch {
      return name === id ? [name] : []
    }
  })
  return [...mounts, ...state, ...groups]
}
