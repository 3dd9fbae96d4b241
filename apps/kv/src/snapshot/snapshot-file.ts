import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import type { RandomAccess } from '@kiln/bbolt'
import { Fault } from '@kiln/service'

/** A database file, with or without the SHA-256 that Maintenance.Snapshot puts behind it. */
export type SnapshotFile = RandomAccess & { path: string; hasHash: boolean; close(): Promise<void> }

export const hashBytes = 32
const sectorBytes = 512
const chunkBytes = 1 << 20

/** Opens a snapshot file. Unless skipped its hash must be there and right: a copy of a member's db file has none. */
export async function openSnapshotFile(
  path: string,
  { skipHashCheck }: { skipHashCheck: boolean },
): Promise<SnapshotFile> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw new Fault('STORE_SNAPSHOT_FILE', `cannot open the snapshot ${path}`, { cause })
  })
  try {
    const { size } = await handle.stat()
    const hasHash = size % sectorBytes === hashBytes
    const sizeBytes = hasHash ? size - hashBytes : size
    if (!skipHashCheck) await checkHash(handle, { path, sizeBytes, hasHash })
    return {
      path,
      hasHash,
      sizeBytes,
      read: (offset, length) => read(handle, offset, Math.min(length, Math.max(0, sizeBytes - offset))),
      close: () => handle.close(),
    }
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function checkHash(
  handle: FileHandle,
  { path, sizeBytes, hasHash }: { path: string; sizeBytes: number; hasHash: boolean },
): Promise<void> {
  if (!hasHash) {
    throw new Fault('STORE_SNAPSHOT_HASH', `${path} has no SHA-256 behind the database`, {
      remedy: "if it is the copy of a member's db file, use --skip-hash-check",
    })
  }
  const hash = createHash('sha256')
  for (let at = 0; at < sizeBytes; ) {
    const bytes = await read(handle, at, Math.min(chunkBytes, sizeBytes - at))
    if (bytes.length === 0) throw new Fault('STORE_SNAPSHOT_FILE', `${path} became shorter while it was read`)
    hash.update(bytes)
    at += bytes.length
  }
  const expected = await read(handle, sizeBytes, hashBytes)
  if (!hash.digest().equals(expected)) {
    throw new Fault('STORE_SNAPSHOT_HASH', `${path} is not what was saved: its SHA-256 is another one`)
  }
}

async function read(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  let got = 0
  while (got < length) {
    const { bytesRead } = await handle.read(bytes, got, length - got, offset + got)
    if (bytesRead === 0) break
    got += bytesRead
  }
  return bytes.subarray(0, got)
}
