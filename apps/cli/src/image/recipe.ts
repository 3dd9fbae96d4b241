import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import * as z from 'zod'

const Names = z.array(z.string().min(1))

/** `infra/image/recipe.json`: what the image is made of. */
export const Recipe = z.strictObject({
  formatVersion: z.literal(1),
  suite: z.string(),
  /** Packages of the image; what they depend on comes along. */
  packages: Names,
  /** Packages that the builder takes single files from: initramfs shell, boot loader. */
  toolPackages: Names,
  /** Dependencies that stay out, by the reason. */
  leftOut: z.record(z.string(), Names),
  /** Globs below the tree that are removed after unpacking. */
  prune: Names,
  pruneEtc: Names,
  /** Kernel modules: by name for the initramfs, by glob below `kernel/` for the image; dependencies come along. */
  modules: z.strictObject({ initramfs: Names, usr: Names }),
  /** Units each target starts. Nothing else starts: no `[Install]`, no presets in `/usr`. */
  wants: z.record(z.string(), Names),
  daemons: Names,
  kernelArguments: Names,
})
export type Recipe = z.output<typeof Recipe>

export const LockedPackage = z.strictObject({
  name: z.string(),
  version: z.string(),
  arch: z.string(),
  sizeBytes: z.number().int(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
})
export type LockedPackage = z.output<typeof LockedPackage>

/** `infra/image/lock.json`: exactly the packages that are used, and the time all files of the image carry. */
export const Lock = z.strictObject({
  formatVersion: z.literal(1),
  suite: z.string(),
  sourceDateEpoch: z.number().int(),
  packages: z.array(LockedPackage),
})
export type Lock = z.output<typeof Lock>

export async function readRecipe(infraDir: string): Promise<Recipe> {
  return readDocument(join(infraDir, 'image', 'recipe.json'), Recipe)
}

export async function readLock(infraDir: string): Promise<Lock> {
  return readDocument(join(infraDir, 'image', 'lock.json'), Lock)
}

async function readDocument<T>(path: string, schema: z.ZodType<T>): Promise<T> {
  let document: unknown
  try {
    document = JSON.parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw new Fault('IMAGE_RECIPE_UNREADABLE', `cannot read ${path}`, { cause })
  }
  const parsed = schema.safeParse(document)
  if (parsed.success) return parsed.data
  throw new Fault('IMAGE_RECIPE_INVALID', `${path} is not valid`, {
    cause: new Error(z.prettifyError(parsed.error)),
  })
}

export type LockChange = { name: string; from?: string; to?: string }

/** Which packages differ between two locks, by name. */
export function lockChanges(before: Lock | undefined, after: Lock): LockChange[] {
  const old = new Map(before?.packages.map((entry) => [entry.name, entry]))
  const fresh = new Map(after.packages.map((entry) => [entry.name, entry]))
  const changes: LockChange[] = []
  for (const name of [...new Set([...old.keys(), ...fresh.keys()])].sort()) {
    const from = old.get(name)
    const to = fresh.get(name)
    if (from?.sha256 !== to?.sha256) changes.push({ name, from: from?.version, to: to?.version })
  }
  return changes
}
