import { lstatSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'

const linksMax = 40

/**
 * The place of an absolute path below a target root, with links resolved inside that root and never out of it. The
 * last element is not followed: it is what will be created or replaced.
 */
export function insideRoot(root: string, path: string): string {
  const waiting = path.split('/').filter((part) => part !== '')
  let at: string[] = []
  let links = 0
  while (waiting.length > 0) {
    const part = waiting.shift()!
    if (part === '.') continue
    if (part === '..') {
      at.pop()
      continue
    }
    const full = join(root, ...at, part)
    if (waiting.length > 0 && lstatSync(full, { throwIfNoEntry: false })?.isSymbolicLink()) {
      if (++links > linksMax) throw new Fault('LINK_LOOP', `${path} goes through more than ${linksMax} links`)
      const target = readlinkSync(full)
      if (target.startsWith('/')) at = []
      waiting.unshift(...target.split('/').filter((each) => each !== ''))
      continue
    }
    at.push(part)
  }
  return join(root, ...at)
}
