import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createReleaseKey, releasePublicKey } from '@kiln/pki'
import { atomicWrite, Fault } from '@kiln/service'
import { signReleaseFolder } from '../lab/release.ts'
import type { CommandContext } from './context.ts'

/** `kiln release sign DIR --key FILE`. */
export async function signRelease(
  options: { folder: string; key: string; days: number },
  context: CommandContext,
): Promise<void> {
  const key = await readFile(options.key, 'utf8').catch((cause) => {
    throw new Fault('RELEASE_KEY_MISSING', `cannot read the release key ${options.key}`, {
      cause,
      remedy: 'make one with: kiln release key FILE',
    })
  })
  await signReleaseFolder(options.folder, key, options.days)
  context.print(`signed ${options.folder}, good for ${options.days} days`)
}

/** `kiln release key FILE`: a new key; its public half is printed, for `/etc/kiln/release-keys`. */
export async function createKey(options: { file: string }, context: CommandContext): Promise<void> {
  if (existsSync(options.file)) throw new Fault('RELEASE_KEY_EXISTS', `${options.file} exists already`)
  const key = createReleaseKey()
  await atomicWrite(options.file, key.privateKey, { mode: 0o600 }).catch((cause: unknown) => {
    throw new Fault('RELEASE_KEY_NOT_WRITTEN', `cannot write ${options.file}`, {
      cause,
      remedy: 'name a file in a folder that is there and may be written to',
    })
  })
  context.print(releasePublicKey(key.privateKey).trimEnd())
}
