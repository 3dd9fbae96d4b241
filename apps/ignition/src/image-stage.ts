import { createHash } from 'node:crypto'
import { closeSync, fsyncSync, openSync, readSync, statSync, writeSync } from 'node:fs'
import type { IgnitionConfig } from '@kiln/schemas'
import { assert, Fault } from '@kiln/service'
import type { PartitionPlace } from './disk-port.ts'
import type { InstallDisk } from './disks-stage.ts'
import { writeBootFiles } from './esp.ts'
import { partOf, type Release } from './release.ts'
import type { Run } from './run.ts'

const chunkBytes = 4 * 1024 * 1024

/** Writes the image to slot A and the boot files to the ESP; nothing is bootable before `enableBoot`. */
export async function runImage(
  install: InstallDisk,
  release: Release | undefined,
  config: IgnitionConfig,
  run: Run,
): Promise<void> {
  const image = run.options.image
  if (image !== undefined) await writeImage(image, install['USR-A'], release, run)
  if (release) await writeBootFiles(install, release, config, run)
}

async function writeImage(
  image: string,
  place: PartitionPlace,
  release: Release | undefined,
  run: Run,
): Promise<void> {
  const sizeBytes = statSync(image).size
  if (sizeBytes > place.sizeBytes) {
    const text = `the image has ${sizeBytes} bytes, USR-A only ${place.sizeBytes}`
    throw new Fault('IMAGE_TOO_LARGE', text, { remedy: 'give USR-A and USR-B more space in the config' })
  }
  const source = openSync(image, 'r')
  const target = openSync(place.path, 'r+')
  try {
    copy(source, target, place.offset, sizeBytes)
    fsyncSync(target)
  } finally {
    closeSync(source)
    closeSync(target)
  }
  // So that what is read below comes from the disk and not from the cache.
  if (place.device) await run.command('blockdev', ['--flushbufs', place.path])
  const written = sumOf(place.path, place.offset, sizeBytes)
  const wanted = release ? partOf(release.manifest, 'usr.img').sha256 : sumOf(image, 0, sizeBytes)
  if (written !== wanted) {
    throw new Fault('IMAGE_CORRUPT', `USR-A has sha256 ${written} after writing, not ${wanted}`, {
      remedy: 'start the machine again; if it happens twice, replace the disk',
    })
  }
  run.reporter.say(`image: ${sizeBytes} bytes in slot a, sha256 ${written}`)
}

function copy(source: number, target: number, offset: number, sizeBytes: number): void {
  const chunk = Buffer.allocUnsafe(chunkBytes)
  for (let done = 0; done < sizeBytes; ) {
    const count = readSync(source, chunk, 0, Math.min(chunkBytes, sizeBytes - done), done)
    if (count === 0) throw new Fault('IMAGE_CORRUPT', `the image ends after ${done} of ${sizeBytes} bytes`)
    for (let wrote = 0; wrote < count; ) {
      wrote += writeSync(target, chunk, wrote, count - wrote, offset + done + wrote)
    }
    done += count
  }
}

function sumOf(path: string, offset: number, sizeBytes: number): string {
  const hash = createHash('sha256')
  const descriptor = openSync(path, 'r')
  try {
    const chunk = Buffer.allocUnsafe(chunkBytes)
    for (let done = 0; done < sizeBytes; ) {
      const count = readSync(descriptor, chunk, 0, Math.min(chunkBytes, sizeBytes - done), offset + done)
      assert(count > 0, `${path} has ${sizeBytes} bytes from ${offset}`)
      hash.update(chunk.subarray(0, count))
      done += count
    }
  } finally {
    closeSync(descriptor)
  }
  return hash.digest('hex')
}
