import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { runCommand } from './commands.ts'
import { defaultFetchSettings, type Fetcher } from './fetch-resource.ts'
import type { CloudIdentity } from './object-store.ts'
import type { Attributes } from './platforms/platform.ts'
import { platformPorts } from './platforms/platform-ports.ts'
import type { Run } from './run.ts'

/** How long attributes are tried for; a machine works without them. */
const attributesTimeoutMs = 30_000

/** Puts what the platform says of this machine into a file of environment lines; without the network it waits. */
export async function writeAttributes(run: Run): Promise<void> {
  const { cloudPlatform } = await import('./platforms/clouds.ts')
  const { options, fetcher, command } = run
  const platform = cloudPlatform(options.platform)
  if (!platform || (platform.needsNetwork && !fetcher.network)) return
  const settings = { ...run.settings, totalTimeoutMs: attributesTimeoutMs }
  try {
    const attributes = await platform.attributes(platformPorts({ fetcher, settings, command }))
    mkdirSync(dirname(options.metadataFile), { recursive: true })
    const temporary = `${options.metadataFile}.new`
    writeFileSync(temporary, environmentLines({ PLATFORM: options.platform, ...attributes }))
    renameSync(temporary, options.metadataFile)
  } catch (error) {
    run.warn(`fetch: the machine's attributes cannot be read: ${(error as Error).message}`)
  }
}

/** Lines for systemd's EnvironmentFile= and for a shell: `KILN_NAME="value"`. */
export function environmentLines(attributes: Attributes): string {
  const lines = Object.entries(attributes).map(([name, value]) => {
    const quoted = value.replaceAll(/[\r\n\0]+/g, ' ').replaceAll(/["\\$`]/g, '\\$&')
    return `KILN_${name}="${quoted}"\n`
  })
  return lines.join('')
}

/** What this instance may show its cloud's object store; nothing when it is in no cloud. */
export async function cloudIdentity(name: string, fetcher: Fetcher): Promise<CloudIdentity> {
  const { cloudPlatform } = await import('./platforms/clouds.ts')
  const settings = { ...defaultFetchSettings, totalTimeoutMs: attributesTimeoutMs }
  return (
    (await cloudPlatform(name)?.identity?.(platformPorts({ fetcher, settings, command: runCommand }))) ?? {}
  )
}
