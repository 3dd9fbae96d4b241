import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describeError, Fault } from '@kiln/service'
import { findProgram, missingMachinePackages } from '@kiln/vm'
import { missingHostPackages } from '../image/host-packages.ts'
import type { StepReport } from '../progress/steps.ts'

const run = promisify(execFile)
const outputBytesMax = 64 * 1024 * 1024

/** What decides whether packages can be installed here. */
export type PackageHost = {
  root: boolean
  apt: boolean
  /** Debian packages this host lacks to build the image and run machines. */
  missing(): Promise<string[]>
  /** Runs apt-get. */
  aptGet(args: string[]): Promise<void>
}

export function packageHost(environment: NodeJS.ProcessEnv, options: { tests?: boolean } = {}): PackageHost {
  const searchPath = environment['PATH'] ?? ''
  return {
    root: process.getuid?.() === 0,
    apt: findProgram('apt-get', searchPath) !== undefined,
    missing: async () =>
      [...new Set([...(await missingHostPackages(options)), ...missingMachinePackages(searchPath)])].sort(),
    aptGet: async (args) => {
      const env = { ...environment, DEBIAN_FRONTEND: 'noninteractive' }
      await run('apt-get', args, { env, maxBuffer: outputBytesMax })
    },
  }
}

/** For tests: what lacks packages says so itself, so a host that cannot install them is no failure. `only` as in `ensurePackages`. */
export async function installWhatCan(
  context: { environment: NodeJS.ProcessEnv; print(text: string): void },
  only?: readonly string[],
): Promise<void> {
  try {
    await ensurePackages(context, { only, tests: true })
  } catch (error) {
    context.print(describeError(error))
  }
}

/**
 * For commands that print lines and nothing else. `only` names the packages that matter to the command, all by default; `tests` adds
 * those that tests use.
 */
export async function ensurePackages(
  context: { environment: NodeJS.ProcessEnv; print(text: string): void },
  { only, tests }: { only?: readonly string[]; tests?: boolean } = {},
): Promise<void> {
  const host = packageHost(context.environment, { tests })
  const say = (text: string): void => context.print(text)
  const missing = async (): Promise<string[]> =>
    (await host.missing()).filter((name) => only?.includes(name) ?? true)
  await ensureHostPackages({ ...host, missing }, { note: say, event: say, live: () => undefined })
}

/** Installs missing Debian packages, or says which they are and stops. */
export async function ensureHostPackages(host: PackageHost, report: StepReport): Promise<string | undefined> {
  const missing = await host.missing()
  if (missing.length === 0) return undefined
  const names = missing.join(' ')
  if (!host.apt || !host.root) {
    throw new Fault('HOST_PACKAGES', `this host lacks the Debian packages ${names}`, {
      remedy: host.apt
        ? `run as root: apt-get install ${names}`
        : 'install what they contain; there is no apt-get here',
    })
  }
  report.note(`installing Debian packages: ${names}`)
  try {
    // Old package lists may still do, where the mirror cannot be asked for new ones.
    await host.aptGet(['update', '-qq']).catch(() => report.note('apt-get update failed, going on without'))
    await host.aptGet(['install', '-y', '-qq', '--no-install-recommends', ...missing])
  } catch (cause) {
    throw new Fault('HOST_PACKAGES', `apt could not install ${names}`, { cause })
  }
  const still = await host.missing()
  if (still.length > 0) throw new Fault('HOST_PACKAGES', `still missing after apt: ${still.join(' ')}`)
  return `installed ${missing.length} Debian packages`
}
