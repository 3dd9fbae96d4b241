import { createHash } from 'node:crypto'
import type { IgnitionConfig } from '@kiln/schemas'
import { ConfigInvalid } from './config-invalid.ts'
import { readConfigText } from './config-source.ts'
import { emptyConfig, renderConfig } from './render-config.ts'
import { missingTools } from './required-tools.ts'
import type { Run } from './run.ts'
import { unsupportedParts } from './supported.ts'

/** A rendered config and how it came about. */
export type Fetched = { config: IgnitionConfig; userConfigProvided: boolean; configHash: string }

/** Finds, fetches and renders the machine's config; says every warning. */
export async function fetchConfig(run: Run): Promise<Fetched> {
  const found = await readConfigText(run.options, run.kernel, run.fetcher, run.settings)
  if (!found) {
    run.warn('fetch: no config was found; the machine is set up without one')
    return { config: emptyConfig, userConfigProvided: false, configHash: hashOf(emptyConfig) }
  }
  const { config, warnings } = await renderConfig(found.text, found.source, run.fetcher, run.settings)
  for (const warning of warnings) run.warn(`fetch: ${warning}`)
  const unsupported = [...unsupportedParts(config), ...missingTools(config, run.hasProgram)]
  if (unsupported.length > 0) throw new ConfigInvalid('the config', unsupported)
  return { config, userConfigProvided: true, configHash: hashOf(config) }
}

const hashOf = (config: IgnitionConfig): string =>
  createHash('sha256').update(JSON.stringify(config)).digest('hex')
