import { createHash } from 'node:crypto'
import {
  chmod,
  copyFile,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Fault } from '@kiln/service'
import { imageLauncher } from '../bundle/launcher.ts'
import { isPartOf } from '../bundle/parts.ts'
import { fileSha256 } from './apt-archive.ts'
import type { BaseTree } from './base-tree.ts'
import { run } from './command.ts'
import type { Recipe } from './recipe.ts'

export type UsrInputs = {
  base: BaseTree
  recipe: Recipe
  infraDir: string
  version: string
  /** Folders below `infra/image/variants` that are laid on top. */
  layers: readonly string[]
  /** The Node binary and the folders with bundles (`*.mjs` and what they load) and native programs. */
  node: string
  bundlesDir: string
  nativeDir: string
  cacheDir: string
}

/** Files below the factory /etc that only root may read. */
const secretFiles = new Set(['shadow', 'gshadow'])

/** Links where the cache is on the same file system, which costs neither time nor space; copies where it is not. */
async function copyMode(from: string, to: string): Promise<'-al' | '-a'> {
  const [source, target] = await Promise.all([stat(from), stat(to)])
  return source.dev === target.dev ? '-al' : '-a'
}

/** Assembles the tree that becomes /usr in `out`. Files of the base may be hard links: replaced, never written to. */
export async function usrTree(inputs: UsrInputs, out: string): Promise<void> {
  const { base, recipe, infraDir } = inputs
  await rm(out, { recursive: true, force: true })
  await mkdir(dirname(out), { recursive: true })
  await run('cp', [await copyMode(base.root, dirname(out)), join(base.root, 'usr'), out])
  const etc = join(out, 'share/factory/etc')
  await mkdir(dirname(etc), { recursive: true })
  await run('cp', ['-a', join(base.root, 'etc'), etc])

  await lay(join(infraDir, 'image/etc'), etc)
  await lay(join(infraDir, 'image/usr'), out)
  await lay(join(infraDir, 'units'), join(out, 'lib/systemd/system'))
  for (const layer of inputs.layers) await lay(join(infraDir, 'image/variants', layer, 'usr'), out)
  for (const name of secretFiles) await chmod(join(etc, name), 0o600)
  await place(join(infraDir, 'image/mount-root.sh'), join(out, 'lib/kiln/mount-root'), 0o755)

  await symlinkOver('../run/systemd/resolve/stub-resolv.conf', join(etc, 'resolv.conf'))
  await symlinkOver('../usr/lib/os-release', join(etc, 'os-release'))
  await replace(join(out, 'lib/os-release'), osRelease(inputs.version), 0o644)
  // Its time is the floor that PID 1 sets the clock to.
  await replace(join(out, 'lib/clock-epoch'), '', 0o644)
  await wantUnits(join(out, 'lib/systemd/system'), recipe.wants)
  await placePrograms(inputs, out)
}

export function osRelease(version: string): string {
  return `NAME="Kiln"\nID=kiln\nVERSION_ID=${version}\nPRETTY_NAME="Kiln ${version}"\n`
}

/** Copies a folder of the repository over the tree: its files' modes are 0755 if executable, else 0644. */
async function lay(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  for (const name of (await readdir(from)).sort()) {
    const source = join(from, name)
    const status = await lstat(source)
    if (status.isDirectory()) await lay(source, join(to, name))
    else if (status.isSymbolicLink()) await symlinkOver(await readlink(source), join(to, name))
    else await place(source, join(to, name), status.mode & 0o100 ? 0o755 : 0o644)
  }
}

async function place(from: string, to: string, mode: number): Promise<void> {
  await mkdir(dirname(to), { recursive: true })
  await rm(to, { force: true })
  await copyFile(from, to)
  await chmod(to, mode)
}

async function replace(path: string, text: string, mode: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await rm(path, { force: true })
  await writeFile(path, text)
  await chmod(path, mode)
}

async function symlinkOver(target: string, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await rm(path, { force: true })
  await symlink(target, path)
}

async function wantUnits(dir: string, wants: Recipe['wants']): Promise<void> {
  await symlinkOver('multi-user.target', join(dir, 'default.target'))
  for (const [target, units] of Object.entries(wants)) {
    for (const unit of [target, ...units]) {
      if (!(await lstat(join(dir, unit)).catch(() => undefined))) {
        throw new Fault(
          'IMAGE_UNIT_MISSING',
          `the recipe wants ${unit}, which neither a package nor infra/units has`,
        )
      }
    }
    for (const unit of units) await symlinkOver(`../${unit}`, join(dir, `${target}.wants`, unit))
  }
}

/** Our programs in the image: bundles, the addons they load, native programs. Names below /usr/lib/kiln. */
async function programFiles(inputs: UsrInputs): Promise<Map<string, { from: string; mode: number }>> {
  const files = new Map<string, { from: string; mode: number }>()
  const built = (await readdir(inputs.bundlesDir)).toSorted()
  for (const program of inputs.recipe.daemons) {
    if (!built.includes(`${program}.mjs`)) {
      throw new Fault('IMAGE_BUNDLE_MISSING', `no bundle of ${program} for the image`, {
        remedy: 'run ./kiln build',
      })
    }
  }
  for (const name of built) {
    const wanted = name.endsWith('.node') || inputs.recipe.daemons.some((program) => isPartOf(program, name))
    if (wanted) files.set(name, { from: join(inputs.bundlesDir, name), mode: 0o644 })
  }
  for (const name of await readdir(inputs.nativeDir).catch(() => [] as string[])) {
    if (name.startsWith('kiln-')) files.set(name, { from: join(inputs.nativeDir, name), mode: 0o755 })
  }
  return files
}

async function placePrograms(inputs: UsrInputs, out: string): Promise<void> {
  await place(await strippedNode(inputs.node, inputs.cacheDir), join(out, 'bin/node'), 0o755)
  for (const [name, { from, mode }] of await programFiles(inputs))
    await place(from, join(out, 'lib/kiln', name), mode)
  for (const name of inputs.recipe.daemons) {
    // The OCI command line is the C program under its other name; its bundle is the planner.
    if (name === 'kiln-oci') await place(join(inputs.nativeDir, 'kiln-init'), join(out, 'bin', name), 0o755)
    else await replace(join(out, 'bin', name), imageLauncher(name), 0o755)
  }
}

/** A hash over everything the tree is made of beside the packages. */
export async function hashUsrInputs(inputs: UsrInputs): Promise<string> {
  const facts: unknown[] = [inputs.version, inputs.layers, inputs.recipe, await fileSha256(inputs.node)]
  for (const dir of ['image', 'units']) facts.push(await treeHash(join(inputs.infraDir, dir)))
  for (const [name, { from }] of await programFiles(inputs)) facts.push(name, await fileSha256(from))
  facts.push(inputs.recipe.daemons.map(imageLauncher))
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex')
}

/** Node without symbols (about 18 MB less), cached by its content. */
async function strippedNode(node: string, cacheDir: string): Promise<string> {
  const key = createHash('sha256')
    .update(await fileSha256(node))
    .digest('hex')
    .slice(0, 16)
  const stripped = join(cacheDir, `node-${key}`)
  if (await stat(stripped).catch(() => undefined)) return stripped
  await run('strip', ['-o', `${stripped}.partial`, node])
  await rename(`${stripped}.partial`, stripped)
  return stripped
}

/** A hash over a folder's files: names, modes, contents. */
async function treeHash(dir: string): Promise<string> {
  const hash = createHash('sha256')
  const visit = async (path: string): Promise<void> => {
    const status = await lstat(path).catch(() => undefined)
    if (!status) return
    hash.update(`${path.slice(dir.length)}\0${status.mode & 0o100111}\0`)
    if (status.isSymbolicLink()) hash.update(await readlink(path))
    else if (status.isFile()) hash.update(await readFile(path))
    else for (const name of (await readdir(path)).sort()) await visit(join(path, name))
  }
  await visit(dir)
  return hash.digest('hex')
}
