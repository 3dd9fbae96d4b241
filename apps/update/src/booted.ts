import { readFile } from 'node:fs/promises'
import { Fault } from '@kiln/service'
import * as z from 'zod'
import type { Booted } from './decide.ts'
import { readEntries } from './esp.ts'
import type { Settings } from './settings.ts'

/** The `installed` marker that the Ignition agent leaves on ROOT. */
const Installed = z.looseObject({ version: z.string(), generation: z.number().int().min(1) })

/**
 * Finds out what runs. A boot from the disk says so in its kernel arguments; the boot that installed the machine
 * went on from slot A, and the `installed` marker says which release that is.
 */
export async function readBooted(settings: Settings): Promise<Booted> {
  const kernel = parseKernelArguments(await readFile(settings.kernelArgumentsFile, 'utf8'))
  const bootId = (await readFile(settings.bootIdFile, 'utf8')).trim()
  const slot = kernel.get('kiln.slot')
  if (slot === 'a' || slot === 'b') {
    const generation = Number(kernel.get('kiln.generation'))
    const version = kernel.get('kiln.version')
    if (!Number.isInteger(generation) || !version)
      throw new Fault(
        'UPDATE_NO_BOOT_FACTS',
        `${settings.kernelArgumentsFile} names a slot but no generation and version`,
      )
    const entry = (await readEntries(settings.espDir)).find((one) => one.generation === generation)
    return { version, generation, slot, bootId, onTrial: entry?.triesLeft !== undefined }
  }
  const installed = Installed.safeParse(JSON.parse(await readFile(settings.installedFile, 'utf8')))
  if (!installed.success)
    throw new Fault(
      'UPDATE_NO_BOOT_FACTS',
      `${settings.installedFile} does not say which release was installed`,
    )
  const { version, generation } = installed.data
  return { version, generation, slot: 'a', bootId, onTrial: false }
}

/** `name=value` words of a kernel command line; the last one wins, as in the kernel. */
export function parseKernelArguments(text: string): Map<string, string> {
  return new Map(
    text
      .trim()
      .split(/\s+/)
      .map((word) => {
        const at = word.indexOf('=')
        return at < 0 ? [word, ''] : [word.slice(0, at), word.slice(at + 1)]
      }),
  )
}
