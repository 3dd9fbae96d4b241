import { blockBytes } from './block.ts'
import type { Disk, DiskFile } from './disk.ts'

const namePattern = /^wal-\d{6}\.log$/
const zeroBytes = 256 * 1024

export async function readSegments(disk: Disk): Promise<{ name: string; bytes: Uint8Array }[]> {
  const segments: { name: string; bytes: Uint8Array }[] = []
  for (const name of await disk.list()) {
    // A segment that was being made when the machine went down.
    if (name.startsWith('wal-') && name.endsWith('.new')) await disk.remove(name)
    if (!namePattern.test(name)) continue
    const file = await disk.open(name, { create: false, durable: false })
    segments.push({ name, bytes: await file.read(0, await file.size()) })
    await file.close()
  }
  return segments
}

/**
 * Makes a segment full of zeros, durably, and opens it with O_DSYNC. Writing over blocks that exist needs no metadata to
 * reach the disk, so a later write costs one flush, and cannot run out of space.
 */
export async function openSegment(disk: Disk, name: string, segmentBytes: number): Promise<DiskFile> {
  const temporary = `${name}.new`
  try {
    const file = await disk.open(temporary, { create: true, durable: false })
    try {
      const zeros = new Uint8Array(Math.min(zeroBytes, segmentBytes))
      for (let at = 0; at < segmentBytes; at += zeros.length) {
        await write(file, zeros.subarray(0, Math.min(zeros.length, segmentBytes - at)), at)
      }
      await file.sync()
    } finally {
      await file.close()
    }
    await disk.rename({ from: temporary, to: name })
    await disk.syncDirectory()
    return await disk.open(name, { create: false, durable: true })
  } catch (error) {
    await disk.remove(temporary).catch(() => undefined)
    throw error
  }
}

/** Blanks whole blocks of a durable file. */
export async function zeroRange(file: DiskFile, from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += zeroBytes) {
    const length = Math.min(zeroBytes, to - at)
    await write(file, new Uint8Array(Math.ceil(length / blockBytes) * blockBytes), at)
  }
}

export function write(file: DiskFile, bytes: Uint8Array, offset: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(bytes, offset, (error) => (error === undefined ? resolve() : reject(error)))
  })
}
