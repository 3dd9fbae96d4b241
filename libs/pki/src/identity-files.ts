import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { atomicWrite, Fault } from '@kiln/service'
import type { KeyPair } from './authority.ts'

/** Reads `NAME.pem` and `NAME.key`; undefined when they were never completely written. */
export async function readIdentity(folder: string, name: string): Promise<KeyPair | undefined> {
  const certificate = await readOptional(join(folder, `${name}.pem`))
  if (certificate === undefined) return undefined
  const key = await readOptional(join(folder, `${name}.key`))
  if (key === undefined) {
    throw new Fault('PKI_KEY_MISSING', `${join(folder, name)}.pem is there without its key`, {
      remedy: `put the key beside it as ${name}.key, or remove the certificate to have both made again`,
    })
  }
  return { certificate, key }
}

/** Writes the key (0600), then the certificate (0644): a certificate without its key is never left behind. */
export async function writeIdentity(folder: string, name: string, pair: KeyPair): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await atomicWrite(join(folder, `${name}.key`), pair.key, { mode: 0o600 })
  await atomicWrite(join(folder, `${name}.pem`), pair.certificate, { mode: 0o644 })
}

/** The identity in the folder, made and kept when there is none. */
export async function identityOf(
  folder: string,
  name: string,
  make: () => Promise<KeyPair>,
): Promise<KeyPair> {
  const found = await readIdentity(folder, name)
  if (found) return found
  const made = await make()
  await writeIdentity(folder, name, made)
  return made
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new Fault('PKI_UNREADABLE', `cannot read ${path}`, { cause })
  }
}
