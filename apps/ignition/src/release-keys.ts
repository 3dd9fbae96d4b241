import type { IgnitionConfig } from '@kiln/schemas'
import { fetchResource } from './fetch-resource.ts'
import { settingsOfRendered } from './render-config.ts'
import type { Run } from './run.ts'

const pattern = /^\/etc\/kiln\/release-keys\/[^/]+\.pub$/

/** Public keys that the config lets sign releases; they are needed before the files are written. */
export async function releaseKeysOf(config: IgnitionConfig, run: Run): Promise<string[]> {
  const keys: string[] = []
  const settings = await settingsOfRendered(config, run.fetcher, run.settings)
  for (const file of config.storage?.files ?? []) {
    if (!pattern.test(file.path) || !file.contents) continue
    const bytes = await fetchResource(file.contents, run.fetcher, settings)
    keys.push(bytes.toString('utf8'))
  }
  return keys
}
