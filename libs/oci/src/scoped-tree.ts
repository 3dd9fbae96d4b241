import { lstat, mkdir, readlink, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '@kiln/service'

const linksMax = 40
const pathBytesMax = 4096

/**
 * Places in a tree that someone else's archive fills. Symlinks are resolved as if the tree were the root of the
 * world; nothing returned here lies outside `root`, as nobody else writes to it meanwhile.
 */
export type ScopedTree = {
  root: string
  /** Where an entry's last component goes; missing folders are made. Refuses `..`. */
  placeOf(path: string): Promise<{ folder: string; name: string; path: string }>
  /** Must be called after a folder became something else. */
  forget(): void
}

export function scopedTree(root: string): ScopedTree {
  const known = new Map<string, string>()

  const folderOf = async (components: string[], create: boolean): Promise<string> => {
    const key = components.join('/')
    const cached = known.get(key)
    if (cached !== undefined) return cached
    let done: string[] = []
    const todo = [...components]
    for (let links = 0; todo.length > 0; ) {
      const component = todo.shift()!
      if (component === '..') {
        done = done.slice(0, -1)
        continue
      }
      const here = join(root, ...done, component)
      const found = await lstat(here).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined
        throw error
      })
      if (found?.isSymbolicLink()) {
        if (++links > linksMax) throw escapes(key, 'goes round in symlinks')
        const target = await readlink(here)
        if (target.startsWith('/')) done = []
        todo.unshift(...target.split('/').filter((part) => part !== '' && part !== '.'))
        continue
      }
      if (found && !found.isDirectory()) throw escapes(key, 'passes through a file')
      if (!found) {
        if (!create) throw escapes(key, 'passes through nothing')
        await mkdir(here, { mode: 0o755 })
      }
      done = [...done, component]
    }
    const folder = join(root, ...done)
    known.set(key, folder)
    return folder
  }

  return {
    root,
    forget: () => known.clear(),
    placeOf: async (path) => {
      const components = splitEntryPath(path)
      const name = components.pop()
      if (name === undefined) return { folder: root, name: '', path: root }
      const folder = await folderOf(components, true)
      return { folder, name, path: join(folder, name) }
    },
  }
}

/** The components of an entry's name; empty for the root itself. */
export function splitEntryPath(path: string): string[] {
  if (Buffer.byteLength(path) > pathBytesMax || path.includes('\0')) throw escapes(path, 'is too long')
  const components = path.split('/').filter((part) => part !== '' && part !== '.')
  if (components.includes('..')) throw escapes(path, 'climbs out of the image')
  return components
}

/** Removes whatever is at a place, without following it. */
export async function removePlace(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined)
  if (!found) return false
  await rm(path, { recursive: found.isDirectory(), force: true })
  return true
}

const escapes = (path: string, why: string): Fault =>
  new Fault('LAYER_PATH_REFUSED', `entry ${JSON.stringify(path.slice(0, 200))} ${why}`)
