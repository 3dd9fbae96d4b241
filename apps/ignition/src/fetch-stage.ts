import { createHash } from 'node:crypto'
import type { IgnitionConfig } from '@kiln/schemas'
import { ConfigInvalid } from './config-invalid.ts'
import { readConfigText } from './config-source.ts'
import { impossibleParts } from './impossible-values.ts'
import { tellJournal } from './journal-message.ts'
import { writeAttributes } from './machine-attributes.ts'
import { installs } from './options.ts'
import { emptyConfig, mergeRendered, renderConfig, settingsOfRendered } from './render-config.ts'
import { missingTools } from './required-tools.ts'
import type { Run } from './run.ts'
import { baseConfigs, type ConfigText } from './system-configs.ts'

/** A rendered config and how it came about. */
export type Fetched = { config: IgnitionConfig; userConfigProvided: boolean; configHash: string }

/** Finds, fetches and renders the machine's config over the distribution's own; says every warning. */
export async function fetchConfig(run: Run): Promise<Fetched> {
  const { options } = run
  const bases = baseConfigs(options.systemConfigDir, options.platform)
  let config = emptyConfig
  let settings = run.settings
  const render = async ({ text, source }: ConfigText, type: 'base' | 'user'): Promise<void> => {
    const fetcher = { ...run.fetcher, configRead: tellOf(run, type) }
    const rendered = await renderConfig(text, source, fetcher, settings)
    for (const warning of rendered.warnings) run.warn(`fetch: ${warning}`)
    config = mergeRendered(config, rendered.config)
    // What a config says of timeouts, proxies and certificates holds for those that follow it.
    settings = await settingsOfRendered(rendered.config, fetcher, settings)
  }
  for (const base of bases) await render(base, 'base')
  const found = await readConfigText(options, run.kernel, run.fetcher, run.settings, run.command)
  if (found) await render(found, 'user')
  else run.warn('fetch: no config was found; the machine is set up without one')
  await writeAttributes(run)
  const refused = [
    ...impossibleParts(config),
    ...missingTools(config, run.hasProgram, { installs: installs(options) }),
  ]
  if (refused.length > 0) throw new ConfigInvalid('the config', refused)
  return { config, userConfigProvided: found !== undefined, configHash: configHashOf(config) }
}

/** A journal message for each config (Ignition, MESSAGE_ID of a fetched config). */
function tellOf(run: Run, type: 'base' | 'user'): Run['fetcher']['configRead'] {
  return async ({ source, referenced }) => {
    await run.fetcher.configRead?.({ source, referenced })
    await tellJournal(run, {
      MESSAGE: `fetched ${referenced ? 'referenced' : 'base'} ${type} config from ${source}`,
      MESSAGE_ID: configFetchedId,
      IGNITION_CONFIG_TYPE: type,
      IGNITION_CONFIG_SRC: source,
      IGNITION_CONFIG_REFERENCED: String(referenced),
    })
  }
}

const configFetchedId = '57124006b5c94805b77ce473e92a8aeb'

/** By which a run that did not finish is told from one of another config. */
export const configHashOf = (config: IgnitionConfig): string =>
  createHash('sha256').update(JSON.stringify(config)).digest('hex')
