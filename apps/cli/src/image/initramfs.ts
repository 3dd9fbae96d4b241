import { copyFile, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { constants, zstdCompressSync } from 'node:zlib'
import { Fault } from '@kiln/service'
import type { BaseTree } from './base-tree.ts'
import { run } from './command.ts'
import { findModules, parseModulesDep, withDependencies } from './kernel-modules.ts'
import { type CpioEntry, packNewc } from './newc.ts'
import type { Recipe } from './recipe.ts'

/** busybox's programs that init.sh uses. */
const applets = [
  ...[
    'cat',
    'chroot',
    'cut',
    'dmesg',
    'echo',
    'grep',
    'ifconfig',
    'ln',
    'losetup',
    'ls',
    'mkdir',
    'modprobe',
    'mount',
    'mv',
  ],
  ...[
    'reboot',
    'rm',
    'route',
    'sed',
    'seq',
    'sh',
    'sleep',
    'sort',
    'stat',
    'switch_root',
    'sync',
    'tac',
    'timeout',
    'tr',
  ],
  ...['umount', 'wget', 'xargs'],
]

const libraryDir = 'usr/lib/x86_64-linux-gnu'

/** The initramfs: busybox, dmsetup with its libraries, the modules of the recipe and init.sh. Same inputs, same bytes. */
export async function buildInitramfs(base: BaseTree, recipe: Recipe, infraDir: string): Promise<Buffer> {
  const files = new Map<string, { source: string; mode: number }>([
    ['init', { source: join(infraDir, 'image/init.sh'), mode: 0o755 }],
    ['mount-root.sh', { source: join(infraDir, 'image/mount-root.sh'), mode: 0o755 }],
    ['bin/busybox', { source: join(base.tools, 'usr/bin/busybox'), mode: 0o755 }],
    ['bin/dmsetup', { source: join(base.root, 'usr/sbin/dmsetup'), mode: 0o755 }],
  ])
  for (const library of await librariesOf(join(base.root, 'usr/sbin/dmsetup'), base.root)) {
    const target = library.startsWith('ld-linux') ? 'lib64' : 'lib/x86_64-linux-gnu'
    files.set(`${target}/${library}`, { source: join(base.root, libraryDir, library), mode: 0o755 })
  }
  const content = new Map<string, Buffer>()
  for (const [path, { source }] of files) content.set(path, await readFile(source))
  for (const [path, bytes] of await modulesOf(base, recipe)) content.set(path, bytes)

  const entries: CpioEntry[] = []
  const directories = new Set(['dev', 'proc', 'sys', 'run', 'tmp', 'sbin'])
  for (const path of content.keys()) {
    for (let dir = dirname(path); dir !== '.'; dir = dirname(dir)) directories.add(dir)
  }
  for (const path of directories) entries.push({ kind: 'directory', path })
  for (const [path, bytes] of content) {
    entries.push({ kind: 'file', path, mode: files.get(path)?.mode ?? 0o644, content: bytes })
  }
  for (const applet of applets) entries.push({ kind: 'link', path: `bin/${applet}`, target: 'busybox' })
  // The kernel calls /sbin/modprobe by this path.
  entries.push({ kind: 'link', path: 'sbin/modprobe', target: '/bin/busybox' })
  return zstdCompressSync(packNewc(entries), { params: { [constants.ZSTD_c_compressionLevel]: 19 } })
}

/** Names of the shared libraries a program needs, from inside the tree. */
async function librariesOf(program: string, root: string): Promise<string[]> {
  const found = new Set<string>()
  const visit = async (file: string): Promise<void> => {
    const dynamic = await run('readelf', ['-d', file])
    for (const [, name = ''] of dynamic.matchAll(/\(NEEDED\)\s+Shared library: \[(.*)\]/g)) {
      if (found.has(name)) continue
      found.add(name)
      await visit(join(root, libraryDir, name))
    }
  }
  await visit(program)
  found.add('ld-linux-x86-64.so.2')
  return [...found].sort()
}

/** The recipe's modules with their dependencies, and depmod's tables for just these. */
async function modulesOf(base: BaseTree, recipe: Recipe): Promise<Map<string, Buffer>> {
  const relative = join('lib/modules', base.kernelRelease)
  const source = join(base.root, 'usr', relative)
  const table = parseModulesDep(await readFile(join(source, 'modules.dep'), 'utf8'))
  const { files, missing } = findModules(table, recipe.modules.initramfs)
  if (missing.length > 0) throw new Fault('IMAGE_KERNEL', `the kernel has no module ${missing.join(', ')}`)
  const wanted = withDependencies(table, files)
  const work = await mkdtemp(join(tmpdir(), 'kiln-modules-'))
  try {
    for (const file of [...wanted, 'modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
      await mkdir(join(work, relative, dirname(file)), { recursive: true })
      await copyFile(join(source, file), join(work, relative, file))
    }
    await run('/sbin/depmod', ['-b', work, base.kernelRelease])
    const content = new Map<string, Buffer>()
    for (const file of [...wanted, 'modules.dep', 'modules.alias', 'modules.symbols', 'modules.builtin']) {
      content.set(join(relative, file), await readFile(join(work, relative, file)))
    }
    return content
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
