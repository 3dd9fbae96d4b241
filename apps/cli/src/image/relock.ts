import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openArchive, resolveLock, updateArchive } from './apt-archive.ts'
import { type LockChange, lockChanges, readLock, readRecipe } from './recipe.ts'

/** Resolves the recipe against the mirror's present packages and writes the lock. Returns what changed. */
export async function relock(options: { rootDir: string; cacheDir: string }): Promise<LockChange[]> {
  const infraDir = join(options.rootDir, 'infra')
  const recipe = await readRecipe(infraDir)
  const before = await readLock(infraDir).catch(() => undefined)
  const archive = await openArchive(options.cacheDir, recipe.suite)
  await updateArchive(archive)
  const after = await resolveLock(archive, recipe)
  const changes = lockChanges(before, after)
  if (changes.length > 0 || !before) {
    await writeFile(join(infraDir, 'image/lock.json'), `${JSON.stringify(after, undefined, 2)}\n`)
  }
  return changes
}

export function describeChange(change: LockChange): string {
  if (change.from === undefined) return `${change.name}: added ${change.to}`
  if (change.to === undefined) return `${change.name}: removed ${change.from}`
  return `${change.name}: ${change.from} -> ${change.to}`
}
