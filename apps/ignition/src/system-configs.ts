import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export type ConfigText = { text: string; source: string }

/**
 * The configs the distribution brings, lowest first: `base.d`, then those for the platform in `base.platform.d/PLATFORM`,
 * each folder in the order of names (Ignition, "distributor notes"). The user's config is merged over them.
 */
export function baseConfigs(folder: string | undefined, platform: string): ConfigText[] {
  if (folder === undefined) return []
  return [join(folder, 'base.d'), join(folder, 'base.platform.d', platform)].flatMap((each) => {
    const names = existsSync(each) ? readdirSync(each).filter((name) => name.endsWith('.ign')) : []
    return names.sort().map((name) => readConfig(join(each, name)))
  })
}

/** The distribution's own config in place of the user's, which only a kernel argument overrides. */
export function distributionUserConfig(folder: string | undefined): ConfigText | undefined {
  if (folder === undefined) return undefined
  const path = join(folder, 'user.ign')
  return existsSync(path) ? readConfig(path) : undefined
}

const readConfig = (path: string): ConfigText => ({ text: readFileSync(path, 'utf8'), source: path })
