import { lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import { join, resolve, sep } from 'node:path'

type Entry =
  | { kind: 'file'; name: string; executable: boolean }
  | { kind: 'directory'; name: string }
  | { kind: 'link'; name: string; target: string }
  | { kind: 'other'; name: string }
type Failure = { ok: false; message: string }

/** A folder whose files may be read, and nothing outside of it. */
export type FilesDirectory = {
  read(path: string): { ok: true; bytes: Uint8Array } | Failure
  list(path: string): { ok: true; entries: Entry[] } | Failure
}

const fileBytesMax = 64 * 1024 * 1024
const totalBytesDefault = 256 * 1024 * 1024
const entriesMax = 100_000

/**
 * Opens a folder for configs that embed files. Neither `..` nor a symbolic link leads out of it, devices and pipes are
 * not read, and what is read is bounded, also in sum.
 */
export function openFilesDirectory(folder: string, limits: { totalBytesMax?: number } = {}): FilesDirectory {
  const base = resolve(folder)
  const totalBytesMax = limits.totalBytesMax ?? totalBytesDefault
  let total = 0
  /** The real path of what is named; throws a sentence for what is outside. */
  const inside = (path: string): string => {
    const named = resolve(base, path)
    const root = realpathSync(base)
    const real = realpathSync(named)
    if (real !== root && !real.startsWith(root === sep ? sep : root + sep)) {
      throw new Refusal(`${named} leads out of the files directory`)
    }
    return real
  }
  return {
    read: (path) =>
      attempt('open', join(base, path), () => {
        const real = inside(path)
        const { size, ...found } = describe(real)
        if (!found.file) throw new Refusal(`read ${join(base, path)}: is not a regular file`)
        total += size
        if (size > fileBytesMax || total > totalBytesMax) {
          throw new Refusal(
            `${join(base, path)}: files may have ${fileBytesMax} bytes, all together ${totalBytesMax}`,
          )
        }
        return { ok: true, bytes: readFileSync(real) }
      }),
    list: (path) =>
      attempt('stat', join(base, path), () => {
        const real = inside(path)
        if (!statSync(real).isDirectory()) throw new Refusal('root of tree must be a directory')
        const names = readdirSync(real)
        if (names.length > entriesMax)
          throw new Refusal(`${join(base, path)} has more than ${entriesMax} entries`)
        return { ok: true, entries: names.map((name) => entryOf(real, name)) }
      }),
  }
}

class Refusal extends Error {}

function attempt<T>(verb: string, path: string, act: () => T): T | Failure {
  try {
    return act()
  } catch (error) {
    if (error instanceof Refusal) return { ok: false, message: error.message }
    const { code } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    return { ok: false, message: `${verb} ${path}: ${reasons[code] ?? code}` }
  }
}

const reasons: Record<string, string> = {
  ENOENT: 'no such file or directory',
  ENOTDIR: 'not a directory',
  EACCES: 'permission denied',
  ELOOP: 'too many levels of symbolic links',
  ENAMETOOLONG: 'file name too long',
}

function describe(path: string): { file: boolean; size: number } {
  const found = statSync(path)
  return { file: found.isFile(), size: found.size }
}

function entryOf(folder: string, name: string): Entry {
  const path = join(folder, name)
  const found = lstatSync(path)
  if (found.isDirectory()) return { kind: 'directory', name }
  if (found.isSymbolicLink()) return { kind: 'link', name, target: readlinkSync(path) }
  if (found.isFile()) return { kind: 'file', name, executable: (found.mode & 0o111) !== 0 }
  return { kind: 'other', name }
}
