import {
  chmodSync,
  chownSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { Fault } from '@kiln/service'
import { insideRoot } from './root-path.ts'
import type { Run } from './run.ts'

/** Files below the root that is being configured. Paths are absolute paths of the machine. */
export type TargetRoot = {
  place(path: string): string
  read(path: string): string | undefined
  /** Replaces a file whole; missing parents are made 0755. Durable only after the stage's final sync. */
  write(path: string, content: string | Uint8Array, mode: number, owner?: Owner): void
  folder(path: string, mode: number, owner?: Owner): void
  own(path: string, owner: Owner | undefined): void
  remove(path: string): void
}

export type Owner = { uid: number; gid: number }

const parentMode = 0o755

export function openTargetRoot(run: Pick<Run, 'options' | 'privileged' | 'warn'>): TargetRoot {
  const root = run.options.root
  const place = (path: string): string => insideRoot(root, path)

  const makeParents = (full: string): void => {
    const missing: string[] = []
    for (let at = dirname(full); !lstatSync(at, { throwIfNoEntry: false }); at = dirname(at)) missing.push(at)
    for (const folder of missing.reverse()) {
      mkdirSync(folder)
      chmodSync(folder, parentMode)
    }
  }

  const own = (full: string, owner: Owner | undefined): void => {
    if (!owner) return
    const link = lstatSync(full).isSymbolicLink()
    if (run.privileged) (link ? lchownSync : chownSync)(full, owner.uid, owner.gid)
    else if (owner.uid !== process.getuid!() || owner.gid !== process.getgid!()) {
      run.warn('files: owners are not set: not running as root')
    }
  }

  return {
    place,
    read(path) {
      try {
        return readFileSync(place(path), 'utf8')
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
        throw notAFile(path, error)
      }
    },
    write(path, content, mode, owner) {
      const full = place(path)
      makeParents(full)
      const temporary = `${full}.kiln-new`
      rmSync(temporary, { force: true })
      writeFileSync(temporary, content, { flag: 'wx', mode: 0o600 })
      own(temporary, owner)
      chmodSync(temporary, mode)
      try {
        renameSync(temporary, full)
      } catch (error) {
        rmSync(temporary)
        throw notAFile(path, error)
      }
    },
    folder(path, mode, owner) {
      const full = place(path)
      makeParents(full)
      mkdirSync(full, { recursive: true })
      own(full, owner)
      chmodSync(full, mode)
    },
    own: (path, owner) => own(place(path), owner),
    remove: (path) => rmSync(place(path), { recursive: true, force: true }),
  }
}

/** A config may have put a directory where a file of the system belongs. */
const notAFile = (path: string, error: unknown): unknown =>
  (error as NodeJS.ErrnoException).code === 'EISDIR'
    ? new Fault('PATH_EXISTS', `${path} is a directory, and a file of the system belongs there`, {
        remedy: 'take it out of the config',
      })
    : error
