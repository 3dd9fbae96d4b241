import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ReleaseManifest } from '@kiln/schemas'

const usrBytes = 1024 * 1024

/**
 * A release for machines that have no kernel: parts of made-up bytes under a true manifest. Its root hash is the
 * image's sha256, since nothing here can compute a hash tree without veritysetup.
 */
export async function writeStandInRelease(folder: string, version: string, now: Date): Promise<void> {
  await mkdir(folder, { recursive: true })
  const text = (name: string): Buffer => Buffer.from(`${name} of the stand-in release ${version}\n`)
  const usr = Buffer.alloc(usrBytes, `usr ${version} `)
  const parts: [string, Buffer][] = [
    ['vmlinuz', text('kernel')],
    ['initrd', text('initramfs')],
    ['usr.img', usr],
    ['systemd-bootx64.efi', text('boot loader')],
  ]
  for (const [name, bytes] of parts) await writeFile(join(folder, name), bytes)
  const manifest: ReleaseManifest = {
    formatVersion: 1,
    version,
    arch: 'x86_64',
    createdAt: now.toISOString(),
    expiresAt: now.toISOString(),
    usrRootHash: sha256(usr),
    usrHashOffset: usrBytes,
    kernelArguments: ['console=ttyS0'],
    parts: parts.map(([name, bytes]) => ({ name, sizeBytes: bytes.length, sha256: sha256(bytes) })),
  }
  await writeFile(join(folder, 'manifest.json'), JSON.stringify(manifest, null, 2) + '\n')
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
