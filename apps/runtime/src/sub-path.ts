import { constants } from 'node:fs'
import { chmod, chown, type FileHandle, mkdir, open, realpath } from 'node:fs/promises'
import { Fault } from '@kiln/service'

/** O_PATH of open(2), which Node does not name. */
const onlyPath = 0o10000000

/**
 * Finds, or makes as a folder, what a container wants to mount of a volume; answers its path without symlinks. Other containers write
 * in the volume meanwhile: every step starts at an open folder and follows no symlink, and kiln-init opens the answer the same way.
 */
export async function findSubPath(
  volume: { name: string; folder: string; gid: number },
  subPath: string,
): Promise<string> {
  const base = await realpath(volume.folder)
  let at = await open(base, onlyPath | constants.O_DIRECTORY).catch((cause) => {
    throw new Fault('POD_SUBPATH_REFUSED', `volume ${volume.name} is no folder, and has no ${subPath}`, {
      cause,
    })
  })
  try {
    for (const part of subPath.split('/')) {
      const below = await enter(at, part, volume)
      await at.close()
      at = below
    }
    return `${base}/${subPath}`
  } finally {
    await at.close()
  }
}

async function enter(
  at: FileHandle,
  part: string,
  volume: { name: string; gid: number },
): Promise<FileHandle> {
  // The descriptor's link in /proc is the folder itself, so that this is openat(2).
  const path = `/proc/self/fd/${at.fd}/${part}`
  const look = (): Promise<FileHandle> => open(path, onlyPath | constants.O_NOFOLLOW)
  try {
    const found = await look().catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
      await mkdir(path)
      const made = await look()
      const itself = `/proc/self/fd/${made.fd}`
      await chown(itself, 0, volume.gid)
      await chmod(itself, volume.gid === 0 ? 0o777 : 0o2777)
      return made
    })
    if (!(await found.stat()).isSymbolicLink()) return found
    await found.close()
  } catch (cause) {
    throw new Fault('POD_SUBPATH_REFUSED', `cannot reach ${part} in volume ${volume.name}`, { cause })
  }
  throw new Fault(
    'POD_SUBPATH_REFUSED',
    `${part} in volume ${volume.name} is a symlink, and may lead anywhere`,
  )
}
