import { parseArgs } from 'node:util'
import { version } from '@kiln/service'
import type { RunCommand } from './commands.ts'
import { withTwoDashes } from './options.ts'

const usage = `usage: ignition-rmcfg --platform NAME
       kiln-ignition rmcfg --platform NAME

Deletes the config, which may hold secrets, from where the platform keeps it for the machine. Of the platforms that Kiln knows that
is vmware alone; elsewhere there is nothing to delete.

  --platform NAME   the platform
  --log-to-stdout   log to standard output instead of standard error
  --version         print the version
`

/** Properties of a VMware machine that hold its config. */
const properties = ['ignition.config.data', 'ignition.config.data.encoding']

export type RemovePorts = {
  command: RunCommand
  platforms: readonly string[]
  write(descriptor: 1 | 2, text: string): void
}

/** Ignition's own ignition-rmcfg. 0 when there is no config any more, 1 when it could not be deleted, 2 for the command line. */
export async function removeConfig(
  argv: string[],
  { command, platforms, write }: RemovePorts,
): Promise<number> {
  let values: { platform?: string; 'log-to-stdout'?: boolean; version?: boolean; help?: boolean }
  try {
    values = parseArgs({
      args: withTwoDashes(argv),
      options: {
        platform: { type: 'string' },
        'log-to-stdout': { type: 'boolean' },
        version: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values
  } catch (error) {
    write(2, `ignition-rmcfg: ${(error as Error).message}\n\n${usage}`)
    return 2
  }
  if (values.help || values.version) {
    write(1, values.help ? usage : `ignition-rmcfg ${version}\n`)
    return 0
  }
  const { platform } = values
  if (platform === undefined || !platforms.includes(platform)) {
    const problem = platform === undefined ? 'is missing' : `${platform} is unknown`
    write(2, `ignition-rmcfg: --platform ${problem}; it is one of ${platforms.join(', ')}\n\n${usage}`)
    return 2
  }
  const log = values['log-to-stdout'] ? 1 : 2
  if (platform !== 'vmware') {
    write(log, `ignition-rmcfg: platform ${platform} keeps no config that can be deleted\n`)
    return 0
  }
  try {
    for (const name of properties) await command('vmware-rpctool', [`info-set guestinfo.${name} `])
  } catch (error) {
    write(2, `ignition-rmcfg: the config could not be deleted: ${(error as Error).message}\n`)
    return 1
  }
  write(log, 'ignition-rmcfg: the config is deleted\n')
  return 0
}
