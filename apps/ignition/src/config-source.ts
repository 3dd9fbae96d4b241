import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { configHeaders, type Fetcher, type FetchSettings, fetchResource } from './fetch-resource.ts'
import type { KernelArguments } from './kernel-arguments.ts'
import type { Options } from './options.ts'

/** Where QEMU's firmware configuration shows up (kernel module qemu_fw_cfg). */
const firmwareConfigPath = '/sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw'

export type ConfigText = { text: string; source: string }

/**
 * The machine's config: what the command line names, else kernel argument ignition.config.url, else what the platform
 * has. Undefined when there is none: the machine is then set up without one.
 */
export async function readConfigText(
  options: Options,
  kernel: KernelArguments,
  fetcher: Fetcher,
  settings: FetchSettings,
): Promise<ConfigText | undefined> {
  const named = options.config ?? kernel.configUrl
  if (named !== undefined) {
    const source = /^[a-z][a-z0-9+.-]*:/i.test(named) ? named : pathToFileURL(resolve(named)).href
    const limited = { ...settings, totalTimeoutMs: options.fetchTimeoutMs }
    const bytes = await fetchResource({ source }, fetcher, limited, configHeaders)
    return nonEmpty(bytes.toString('utf8'), source)
  }
  switch (options.platform) {
    case 'qemu':
      return existsSync(firmwareConfigPath)
        ? nonEmpty(readFileSync(firmwareConfigPath, 'utf8'), 'fw_cfg:opt/com.coreos/config')
        : undefined
    case 'metal':
    case 'file':
      return undefined
  }
}

/** A source that gives nothing counts as having no config. */
function nonEmpty(text: string, source: string): ConfigText | undefined {
  return text.trim() === '' ? undefined : { text, source }
}
