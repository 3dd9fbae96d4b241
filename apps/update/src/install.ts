import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, readFile, realpath, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { compareVersions, type ReleaseManifest, type ReleasePart } from '@kiln/schemas'
import { assert, Fault, type Log } from '@kiln/service'
import type { SignedRelease } from './boot-server.ts'
import type { Booted, Slot } from './decide.ts'
import { entriesToRemove, entryText, kernelsToRemove, stagedEntryName } from './entries.ts'
import {
  argumentsFor,
  readEntries,
  readKernelFolders,
  removeEntries,
  removeKernelFolders,
  writeEntry,
  writeKernelPart,
} from './esp.ts'
import { loadProgress, saveProgress } from './state.ts'

/** Bytes between two syncs of a download; what a power cut can cost. */
const syncEveryBytes = 16 * 1024 * 1024
const retriesMax = 8
const kernelPartBytesMax = 64 * 1024 * 1024

export type InstallPorts = {
  espDir: string
  stateDir: string
  slotPath(slot: Slot): string
  bootUrl: string
  machine: string
  /** Opens a part of the release for reading from a byte offset; `offset` of the answer is where it really starts. */
  openPart(
    release: SignedRelease,
    name: string,
    offset: number,
  ): Promise<{ offset: number; body: AsyncIterable<Uint8Array> }>
  sleep(ms: number): Promise<void>
  log: Log
}

/**
 * Puts a release into the inactive slot, in the order that leaves a bootable disk at every power cut: remove the
 * slot's entry; write USR, sync, read it back; kernel and initramfs; the entry last. The entry is bootable only once
 * `armEntry` gave it its name, when the machine has the turn.
 */
export async function installRelease(
  release: SignedRelease,
  to: { slot: Slot; generation: number; booted: Booted },
  ports: InstallPorts,
): Promise<void> {
  const { manifest } = release
  assert(to.slot !== to.booted.slot, 'the running slot is never written')
  assert(compareVersions(manifest.version, to.booted.version) !== 0, 'an install changes the version')
  await removeEntries(ports.espDir, entriesToRemove(await readEntries(ports.espDir), to.booted.generation))
  await removeKernelFolders(
    ports.espDir,
    kernelsToRemove(await readKernelFolders(ports.espDir), [to.booted.version]),
  )

  const usr = partOf(manifest, 'usr.img')
  await downloadToSlot(release, usr, to.slot, ports)
  await verifySlot(usr, ports.slotPath(to.slot), ports, to.slot, release)

  for (const name of ['vmlinuz', 'initrd']) {
    const content = await fetchPart(release, partOf(manifest, name), ports)
    await writeKernelPart(ports.espDir, { version: manifest.version, name }, content)
  }
  await writeEntry(
    ports.espDir,
    stagedEntryName(to.generation, manifest.version),
    entryText({
      version: manifest.version,
      generation: to.generation,
      slot: to.slot,
      usrRootHash: manifest.usrRootHash,
      usrHashOffset: manifest.usrHashOffset,
      kernelArguments: await argumentsFor(manifest, ports.espDir),
      bootUrl: ports.bootUrl,
      machine: ports.machine,
    }),
  )
  ports.log.info({ version: manifest.version, slot: to.slot, generation: to.generation }, 'release installed')
}

function partOf(manifest: ReleaseManifest, name: string): ReleasePart {
  const part = manifest.parts.find((one) => one.name === name)
  if (!part) throw new Fault('RELEASE_INCOMPLETE', `release ${manifest.version} has no part ${name}`)
  return part
}

/** Streams the image into the slot, resuming at what an earlier run of the same manifest had synced. */
async function downloadToSlot(
  release: SignedRelease,
  part: ReleasePart,
  slot: Slot,
  ports: InstallPorts,
): Promise<void> {
  const manifestSha256 = createHash('sha256').update(release.bytes).digest('hex')
  const saved = await loadProgress(ports.stateDir)
  let at =
    saved?.manifestSha256 === manifestSha256 && saved.slot === slot
      ? Math.min(saved.bytes, part.sizeBytes)
      : 0
  const device = await openSlot(ports.slotPath(slot), part)
  try {
    // What another release left there is about to be overwritten, so its mark goes first.
    if (at === 0) await saveProgress(ports.stateDir, { manifestSha256, slot, bytes: 0 })
    for (let failures = 0; at < part.sizeBytes; ) {
      const before = at
      try {
        const source = await ports.openPart(release, part.name, at)
        at = await copyToSlot(source, device, part, async (bytes) => {
          await device.datasync()
          await saveProgress(ports.stateDir, { manifestSha256, slot, bytes })
        })
        if (at === before) throw new Fault('RELEASE_UNREACHABLE', `${part.name} ended at byte ${at}`)
      } catch (error) {
        if (error instanceof Fault && error.code !== 'RELEASE_UNREACHABLE') throw error
        at = (await loadProgress(ports.stateDir))?.bytes ?? 0
        failures = at > before ? 0 : failures + 1
        if (failures > retriesMax)
          throw new Fault(
            'RELEASE_UNREACHABLE',
            `downloading ${part.name} stopped at byte ${at} of ${part.sizeBytes}`,
            {
              cause: error,
            },
          )
        ports.log.warn({ part: part.name, at, failures, error }, 'download interrupted, resuming')
        await ports.sleep(Math.min(30_000, 500 * 2 ** failures))
      }
    }
  } finally {
    await device.close()
  }
}

async function openSlot(path: string, part: ReleasePart): Promise<FileHandle> {
  const device = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600).catch((cause: unknown) => {
    throw new Fault('SLOT_UNAVAILABLE', `opening slot ${path} for writing`, { cause })
  })
  try {
    const size = await deviceSize(path)
    if (size !== undefined && size < part.sizeBytes)
      throw new Fault('SLOT_TOO_SMALL', `${path} has ${size} bytes, ${part.name} needs ${part.sizeBytes}`)
    return device
  } catch (error) {
    await device.close()
    throw error
  }
}

/** Bytes of a block device as the kernel tells them; a file grows, so it has no size. */
async function deviceSize(path: string): Promise<number | undefined> {
  const name = basename(await realpath(path))
  const sectors = await readFile(`/sys/class/block/${name}/size`, 'utf8').catch(() => undefined)
  return sectors === undefined ? undefined : Number(sectors) * 512
}

async function copyToSlot(
  source: { offset: number; body: AsyncIterable<Uint8Array> },
  device: FileHandle,
  part: ReleasePart,
  checkpoint: (bytes: number) => Promise<void>,
): Promise<number> {
  let at = source.offset
  let synced = at
  try {
    for await (const chunk of source.body) {
      if (at + chunk.length > part.sizeBytes)
        throw new Fault('IMAGE_CORRUPT', `${part.name} is longer than its manifest's ${part.sizeBytes} bytes`)
      for (let done = 0; done < chunk.length; ) {
        const { bytesWritten } = await device.write(chunk, done, chunk.length - done, at + done)
        done += bytesWritten
      }
      at += chunk.length
      if (at - synced >= syncEveryBytes) {
        await checkpoint(at)
        synced = at
      }
    }
  } catch (error) {
    // A connection that breaks often still gets on: what came is kept.
    if (error instanceof Fault && error.code === 'RELEASE_UNREACHABLE' && at > synced) await checkpoint(at)
    throw error
  }
  await checkpoint(at)
  return at
}

/** Reads the slot back, from the disk and not from the page cache where the kernel lets us drop it. */
async function verifySlot(
  part: ReleasePart,
  path: string,
  ports: InstallPorts,
  slot: Slot,
  release: SignedRelease,
): Promise<void> {
  if ((await deviceSize(path)) !== undefined)
    await writeFile('/proc/sys/vm/drop_caches', '1').catch(() =>
      ports.log.debug({}, 'page cache stays: not root'),
    )
  const hash = createHash('sha256')
  const device = await open(path, 'r')
  try {
    const buffer = Buffer.alloc(1024 * 1024)
    for (let at = 0; at < part.sizeBytes; ) {
      const { bytesRead } = await device.read(buffer, 0, Math.min(buffer.length, part.sizeBytes - at), at)
      if (bytesRead === 0) break
      hash.update(buffer.subarray(0, bytesRead))
      at += bytesRead
    }
  } finally {
    await device.close()
  }
  if (hash.digest('hex') === part.sha256) return
  // What is in the slot is worth nothing: the next try starts from the first byte.
  await saveProgress(ports.stateDir, { manifestSha256: '', slot, bytes: 0 })
  throw new Fault(
    'IMAGE_CORRUPT',
    `slot ${slot} does not hold the ${part.name} that release ${release.manifest.version} names`,
  )
}

/** Kernel and initramfs are small: fetched whole, checked, then written. */
async function fetchPart(
  release: SignedRelease,
  part: ReleasePart,
  ports: InstallPorts,
): Promise<Uint8Array> {
  if (part.sizeBytes > kernelPartBytesMax)
    throw new Fault(
      'RELEASE_INCOMPLETE',
      `${part.name} has ${part.sizeBytes} bytes, ${kernelPartBytesMax} at most`,
    )
  for (let failures = 0; ; failures++) {
    try {
      const chunks: Uint8Array[] = []
      let length = 0
      for await (const chunk of (await ports.openPart(release, part.name, 0)).body) {
        length += chunk.length
        if (length > part.sizeBytes) break
        chunks.push(chunk)
      }
      const content = Buffer.concat(chunks)
      if (
        content.length !== part.sizeBytes ||
        createHash('sha256').update(content).digest('hex') !== part.sha256
      )
        throw new Fault(
          'IMAGE_CORRUPT',
          `${part.name} of ${release.manifest.version} does not match its manifest`,
        )
      return content
    } catch (error) {
      if (failures >= retriesMax) throw error
      ports.log.warn({ part: part.name, failures, error }, 'fetching failed, trying again')
      await ports.sleep(Math.min(30_000, 500 * 2 ** failures))
    }
  }
}
