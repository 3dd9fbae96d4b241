import { createHash } from 'node:crypto'
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { EtcdClient } from '@kiln/etcd-api'
import { Fault, syncDirectory } from '@kiln/service'
import { hashBytes } from './snapshot-file.ts'

/** Called with the bytes so far and those that are to come. */
export type OnProgress = (doneBytes: number, leftBytes: number) => void

/**
 * Saves a member's snapshot: into a neighbour, its SHA-256 checked as it comes, synced, renamed. A file under `path` is
 * always a whole one.
 */
export async function saveSnapshotTo(
  client: Pick<EtcdClient, 'snapshot'>,
  path: string,
  onProgress: OnProgress = () => undefined,
): Promise<number> {
  const temporary = `${path}.part`
  const file = await open(temporary, 'w', 0o600).catch((cause: unknown) => {
    throw new Fault('STORE_SNAPSHOT_FILE', `cannot create ${temporary}`, { cause })
  })
  try {
    let bytes = 0
    const hash = createHash('sha256')
    /** The last bytes so far: they may be the digest. */
    let tail = Buffer.alloc(0)
    for await (const { blob, remainingBytes } of client.snapshot()) {
      await writeAll(file, blob)
      bytes += blob.length
      const held = Buffer.concat([tail, blob])
      const cut = Math.max(0, held.length - hashBytes)
      hash.update(held.subarray(0, cut))
      tail = held.subarray(cut)
      onProgress(bytes, Number(remainingBytes))
    }
    if (!hash.digest().equals(tail)) {
      throw new Fault('STORE_SNAPSHOT_HASH', 'the snapshot that was received is not what the member sent')
    }
    await file.sync()
    await file.close()
    await rename(temporary, path)
    await syncDirectory(dirname(path))
    return bytes
  } catch (error) {
    await file.close().catch(() => undefined)
    await rm(temporary, { force: true })
    throw error
  }
}

async function writeAll(file: Awaited<ReturnType<typeof open>>, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at)
    at += bytesWritten
  }
}

const namePattern = /^snapshot-\d{8}T\d{6}Z\.db$/
/** A save that began so long ago is no longer running. */
const abandonedMs = 24 * 3_600_000

const nameOf = (time: Date): string => `snapshot-${time.toISOString().replace(/[-:]|\.\d+/g, '')}.db`

/**
 * Saves a snapshot under the time's name in a folder and deletes the oldest beyond `keep`, after the new one is safe. Only
 * names of this form are counted and deleted.
 */
export async function saveWithRetention(
  client: Pick<EtcdClient, 'snapshot'>,
  options: { folder: string; keep: number; now: Date; onProgress?: OnProgress },
): Promise<{ path: string; bytes: number; deleted: string[] }> {
  const { folder, keep, now } = options
  if (keep < 1) throw new Fault('USAGE', '--keep must be at least 1')
  await mkdir(folder, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
    throw new Fault('STORE_SNAPSHOT_FILE', `cannot make the folder ${folder}`, { cause })
  })
  const path = join(folder, nameOf(now))
  const bytes = await saveSnapshotTo(client, path, options.onProgress)
  const names = (await readdir(folder)).filter((name) => namePattern.test(name)).sort()
  const deleted = names.slice(0, Math.max(0, names.length - keep))
  for (const name of deleted) await rm(join(folder, name), { force: true })
  const abandoned = nameOf(new Date(now.getTime() - abandonedMs))
  for (const name of await readdir(folder)) {
    const whole = name.endsWith('.part') ? name.slice(0, -5) : ''
    if (namePattern.test(whole) && whole < abandoned) await rm(join(folder, name), { force: true })
  }
  await syncDirectory(folder)
  return { path, bytes, deleted }
}
