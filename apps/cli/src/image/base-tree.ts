import { createHash } from 'node:crypto'
import {
  chmod,
  glob,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { join, matchesGlob } from 'node:path'
import { Fault } from '@kiln/service'
import { type AptArchive, debPath } from './apt-archive.ts'
import { run } from './command.ts'
import { findModules, parseModulesDep, withDependencies } from './kernel-modules.ts'
import type { Lock, Recipe } from './recipe.ts'

/** Raised when this file makes another tree from the same recipe and lock. */
const baseFormat = 1

/** Programs that keep their setuid bit; everything else loses it. */
const setuidKept = new Set(['usr/bin/su'])

/** Age at which a cached tree of another recipe is removed. */
const staleMs = 3 * 86_400_000

/** What the packages give: `root` (pruned, with /usr and /etc), `tools` (of toolPackages) and the kernel. */
export type BaseTree = { key: string; root: string; tools: string; kernel: string; kernelRelease: string }

/**
 * Unpacks the locked packages into a tree, cached by lock and recipe. No package's scripts run: what they would
 * do is in `infra/image` or here, so the tree is a function of the .deb files and needs no root.
 */
export async function baseTree(
  archive: AptArchive,
  lock: Lock,
  recipe: Recipe,
  cacheDir: string,
  say: (line: string) => void,
): Promise<BaseTree> {
  const inputs = [
    baseFormat,
    lock.packages,
    recipe.toolPackages,
    recipe.prune,
    recipe.pruneEtc,
    recipe.modules,
  ]
  const key = createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16)
  const dir = join(cacheDir, `base-${key}`)
  if (!(await stat(dir).catch(() => undefined))) {
    say(`unpacking ${lock.packages.length} packages`)
    await dropStale(cacheDir)
    const partial = await mkdtemp(`${dir}.partial-`)
    try {
      await fill(partial, archive, lock, recipe)
      // Another build may have finished the same tree meanwhile.
      await rename(partial, dir).catch(async (cause) => {
        if (!(await stat(dir).catch(() => undefined))) throw cause
      })
    } finally {
      await rm(partial, { recursive: true, force: true })
    }
  }
  const root = join(dir, 'root')
  const [kernelRelease = ''] = await readdir(join(root, 'usr/lib/modules'))
  return { key, root, tools: join(dir, 'tools'), kernel: join(dir, 'vmlinuz'), kernelRelease }
}

async function fill(dir: string, archive: AptArchive, lock: Lock, recipe: Recipe): Promise<void> {
  const root = join(dir, 'root')
  await unpack(archive, lock, recipe, dir)
  await linkAlternatives(root)
  await bundleCertificates(root)
  const release = await takeKernel(root, dir)
  await pruneModules(root, release, recipe)
  await prune(root, [...recipe.prune, ...recipe.pruneEtc])
  await dropSetuid(root)
}

/** Trees of other recipes, and what a killed build left, go when nobody made them lately. */
async function dropStale(cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    if (!name.startsWith('base-') && !name.startsWith('reproduce-')) continue
    const { mtimeMs } = await stat(join(cacheDir, name))
    if (Date.now() - mtimeMs > staleMs) await rm(join(cacheDir, name), { recursive: true, force: true })
  }
}

async function unpack(archive: AptArchive, lock: Lock, recipe: Recipe, dir: string): Promise<void> {
  const tools = new Set(recipe.toolPackages)
  for (const tree of ['root', 'tools']) {
    for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
      await mkdir(join(dir, tree, 'usr', name), { recursive: true })
      await symlink(`usr/${name}`, join(dir, tree, name))
    }
  }
  for (const entry of lock.packages) {
    const target = join(dir, tools.has(entry.name) ? 'tools' : 'root')
    const script =
      'set -e; dpkg-deb --fsys-tarfile "$1" | tar -x -p --no-same-owner --keep-directory-symlink -C "$2"'
    await run('bash', ['-o', 'pipefail', '-c', script, 'unpack', debPath(archive, entry), target])
  }
}

/** The few links that update-alternatives would have made. */
async function linkAlternatives(root: string): Promise<void> {
  for (const [name, target] of [
    ['usr/bin/awk', 'mawk'],
    ['usr/bin/which', 'which.debianutils'],
    ['usr/bin/pager', 'less'],
    // What the CNI plug-ins run.
    ...['', '-save', '-restore'].flatMap((suffix) => [
      [`usr/sbin/iptables${suffix}`, 'xtables-nft-multi'] as const,
      [`usr/sbin/ip6tables${suffix}`, 'xtables-nft-multi'] as const,
    ]),
  ] as const) {
    await rm(join(root, name), { force: true })
    await symlink(target, join(root, name))
  }
}

/** All of ca-certificates in one file, as update-ca-certificates would write it. */
async function bundleCertificates(root: string): Promise<void> {
  const dir = join(root, 'usr/share/ca-certificates/mozilla')
  const certificates: string[] = []
  for (const name of (await readdir(dir)).sort()) certificates.push(await readFile(join(dir, name), 'utf8'))
  await mkdir(join(root, 'etc/ssl/certs'), { recursive: true })
  await writeFile(join(root, 'etc/ssl/certs/ca-certificates.crt'), certificates.join(''))
}

async function takeKernel(root: string, dir: string): Promise<string> {
  const [release, ...others] = await readdir(join(root, 'usr/lib/modules'))
  if (release === undefined || others.length > 0) {
    throw new Fault('IMAGE_KERNEL', 'the locked packages must contain exactly one kernel')
  }
  await rename(join(root, 'boot', `vmlinuz-${release}`), join(dir, 'vmlinuz'))
  await rm(join(root, 'boot'), { recursive: true })
  return release
}

async function pruneModules(root: string, release: string, recipe: Recipe): Promise<void> {
  const dir = join(root, 'usr/lib/modules', release)
  await rm(join(dir, 'build'), { force: true })
  await rm(join(dir, 'source'), { force: true })
  await run('/sbin/depmod', ['-b', root, release])
  const table = parseModulesDep(await readFile(join(dir, 'modules.dep'), 'utf8'))
  const chosen = [...table.keys()].filter((file) =>
    recipe.modules.usr.some((pattern) => matchesGlob(file, `kernel/${pattern}`)),
  )
  const needed = findModules(table, recipe.modules.initramfs)
  if (needed.missing.length > 0) {
    throw new Fault('IMAGE_KERNEL', `the kernel has no module ${needed.missing.join(', ')}`)
  }
  const kept = new Set(withDependencies(table, [...chosen, ...needed.files]))
  for (const file of table.keys()) if (!kept.has(file)) await rm(join(dir, file))
  await run('find', [join(dir, 'kernel'), '-type', 'd', '-empty', '-delete'])
  await run('/sbin/depmod', ['-b', root, release])
}

async function prune(root: string, patterns: readonly string[]): Promise<void> {
  for (const pattern of patterns) {
    for await (const found of glob(pattern, { cwd: root }))
      await rm(join(root, found), { recursive: true, force: true })
  }
}

async function dropSetuid(root: string): Promise<void> {
  for await (const found of glob('usr/{bin,sbin,lib,libexec}/**', { cwd: root })) {
    if (setuidKept.has(found)) continue
    const status = await lstat(join(root, found))
    if (status.isFile() && (status.mode & 0o6000) !== 0) await chmod(join(root, found), status.mode & 0o777)
  }
}
