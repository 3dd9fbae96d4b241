import { constants, write as writeFile } from 'node:fs'
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { syncDirectory } from '@kiln/service'
import type { Disk, DiskFile } from './disk.ts'

/** A folder of the real disk, made with mode 0700 if it is missing. */
export async function nodeDisk(folder: string): Promise<Disk> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  return {
    list: async () => (await readdir(folder)).sort(),
    open: async (name, { create, durable }) => {
      const flags =
        constants.O_RDWR |
        (create ? constants.O_CREAT | constants.O_TRUNC : 0) |
        (durable ? constants.O_DSYNC : 0)
      return wrap(await open(join(folder, name), flags, 0o600))
    },
    rename: ({ from, to }) => rename(join(folder, from), join(folder, to)),
    remove: (name) => rm(join(folder, name)),
    syncDirectory: () => syncDirectory(folder),
  }
}

function wrap(handle: Awaited<ReturnType<typeof open>>): DiskFile {
  return {
    size: async () => (await handle.stat()).size,
    read: async (offset, length) => {
      const bytes = Buffer.allocUnsafe(length)
      let got = 0
      while (got < length) {
        const { bytesRead } = await handle.read(bytes, got, length - got, offset + got)
        if (bytesRead === 0) break
        got += bytesRead
      }
      return bytes.subarray(0, got)
    },
    write: (bytes, offset, done) => writeAll(handle.fd, bytes, offset, done),
    sync: () => handle.sync(),
    close: () => handle.close(),
  }
}

/** A short write is continued; that is no retry of a failed one. */
function writeAll(
  fd: number,
  bytes: Uint8Array,
  offset: number,
  done: (error: Error | undefined) => void,
): void {
  writeFile(fd, bytes, 0, bytes.length, offset, (error, written) => {
    if (error) done(error)
    else if (written === bytes.length) done(undefined)
    else if (written === 0) done(new Error('nothing could be written'))
    else writeAll(fd, bytes.subarray(written), offset + written, done)
  })
}
