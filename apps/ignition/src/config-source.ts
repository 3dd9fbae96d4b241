import { existsSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { RunCommand } from './commands.ts'
import { configHeaders, type Fetcher, type FetchSettings, fetchResource } from './fetch-resource.ts'
import type { KernelArguments } from './kernel-arguments.ts'
import type { Options } from './options.ts'
import { platformPorts } from './platforms/platform-ports.ts'
import { type ConfigText, distributionUserConfig } from './system-configs.ts'

/** Where QEMU's firmware configuration shows up (kernel module qemu_fw_cfg). */
const firmwareConfigPath = '/sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw'

/**
 * The machine's config: what the command line names, else kernel argument ignition.config.url, else the distribution's
 * user.ign, else what the platform has. Undefined when there is none: the machine is then set up without one.
 */
export async function readConfigText(
  options: Options,
  kernel: KernelArguments,
  fetcher: Fetcher,
  settings: FetchSettings,
  command: RunCommand,
): Promise<ConfigText | undefined> {
  const named = options.config ?? kernel.configUrl
  if (named !== undefined) {
    const source = isUrl(named) ? named : pathToFileURL(resolve(named)).href
    const limited = { ...settings, totalTimeoutMs: options.fetchTimeoutMs }
    const bytes = await fetchResource({ source }, fetcher, limited, configHeaders)
    return nonEmpty(bytes.toString('utf8'), source)
  }
  const ours = distributionUserConfig(options.systemConfigDir)
  if (ours) return ours
  switch (options.platform) {
    case 'qemu':
      return existsSync(firmwareConfigPath)
        ? nonEmpty(readFileSync(firmwareConfigPath, 'utf8'), 'fw_cfg:opt/com.coreos/config')
        : undefined
    case 'metal':
      return undefined
    case 'file': {
      const path = resolve(options.platformFile ?? 'config.ign')
      return nonEmpty(await readFile(path, 'utf8'), pathToFileURL(path).href)
    }
    default: {
      const { cloudPlatform } = await import('./platforms/clouds.ts')
      const limited = { ...settings, totalTimeoutMs: options.fetchTimeoutMs }
      const ports = platformPorts({ fetcher, settings: limited, command })
      const found = await cloudPlatform(options.platform)?.config(ports)
      return found && nonEmpty(found.bytes.toString('utf8'), found.source)
    }
  }
}

/** Whether the name of a config is a URL; any other is a path. */
export const isUrl = (named: string): boolean => /^[a-z][a-z0-9+.-]*:/i.test(named)

/** A source that gives nothing counts as having no config. */
function nonEmpty(text: string, source: string): ConfigText | undefined {
  return text.trim() === '' ? undefined : { text, source }
}
