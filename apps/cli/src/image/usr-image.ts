import { rm, stat } from 'node:fs/promises'
import { Fault } from '@kiln/service'
import { run } from './command.ts'

/** Fixed, so that the same tree gives the same bytes; what names an image is its root hash. */
const filesystemUuid = '6b696c6e-7573-4572-8f00-000000000001'
const verityUuid = '6b696c6e-7573-4572-8f00-000000000002'

/** A USR partition (docs/reference/seams.md) holds 320 MiB; the promise is less. */
const sizeMaxBytes = 165_000_000

export type UsrImage = { rootHash: string; hashOffset: number; sizeBytes: number }

/**
 * Packs a tree as erofs with a dm-verity tree behind it: 4096-byte blocks, sha256, no salt. init.sh relies on just
 * that. All files belong to root and carry one time.
 */
export async function packUsr(tree: string, out: string, sourceDateEpoch: number): Promise<UsrImage> {
  await rm(out, { force: true })
  await run('mkfs.erofs', [
    '-zlz4hc,9',
    '-C65536',
    '-x-1',
    '--all-root',
    `-T${sourceDateEpoch}`,
    `-U${filesystemUuid}`,
    '--quiet',
    out,
    tree,
  ])
  const hashOffset = (await stat(out)).size
  const printed = await run('/sbin/veritysetup', [
    'format',
    `--hash-offset=${hashOffset}`,
    '--salt=-',
    '--hash=sha256',
    '--data-block-size=4096',
    '--hash-block-size=4096',
    `--uuid=${verityUuid}`,
    out,
    out,
  ])
  const rootHash = /^Root hash:\s+([0-9a-f]{64})$/m.exec(printed)?.[1]
  if (!rootHash || hashOffset % 4096 !== 0) {
    throw new Fault('IMAGE_VERITY', 'veritysetup gave no root hash for the image')
  }
  const sizeBytes = (await stat(out)).size
  if (sizeBytes > sizeMaxBytes) {
    throw new Fault('IMAGE_TOO_LARGE', `the image has ${sizeBytes} bytes, more than ${sizeMaxBytes}`)
  }
  return { rootHash, hashOffset, sizeBytes }
}
