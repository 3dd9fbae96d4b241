import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { installWhatCan } from '../lab/host-setup.ts'
import { requireRepository } from '../programs.ts'
import type { CommandContext } from './context.ts'

/** Comparisons with a real peer, alternately in one run. */
export const benches: Readonly<Record<string, string>> = {
  ignition: 'apps/ignition/src/bench/compare.ts',
  kv: 'apps/kv/src/bench/compare.ts',
  runtime: 'apps/oci-cli/src/bench/runtime.ts',
}

/** Case data or real clients against what is built; each ends with the line that counts. */
export const conformances: Readonly<Record<string, string>> = {
  butane: 'apps/ignition/src/conformance/butane.ts',
  etcdctl: 'apps/kv/src/conformance/etcdctl.ts',
  ignition: 'apps/ignition/src/conformance/ignition.ts',
  oci: 'apps/oci-cli/src/conformance/oci.ts',
  podman: 'apps/oci-cli/src/conformance/podman.ts',
}

/** Debian packages of the host that a script uses. */
const packages: Readonly<Record<string, readonly string[]>> = {
  [conformances['ignition']!]: ['btrfs-progs', 'bzip2', 'dosfstools', 'fdisk', 'xfsprogs'],
  [conformances['oci']!]: ['busybox-static', 'gcc', 'jq', 'libc6-dev', 'python3'],
}

/** Members under load and faults, and a check of what clients were told. */
export const verifications: Readonly<Record<string, string>> = { kv: 'apps/kv/src/verify/main.ts' }

/** Runs one of the repository's scripts with this terminal and answers its exit code. */
export async function runScript(
  scripts: Readonly<Record<string, string>>,
  name: string,
  argv: readonly string[],
  context: CommandContext,
): Promise<number> {
  const { signal, environment } = context
  const path = Object.hasOwn(scripts, name) ? scripts[name] : undefined
  if (!path) throw new Fault('USAGE', `there is no ${name}; there are ${Object.keys(scripts).join(', ')}`)
  const script = join(requireRepository(), path)
  const only = packages[path]
  // Without them the script itself says what it left out and why.
  if (only) await installWhatCan(context, only)
  const args = ['--disable-warning=ExperimentalWarning', script, ...argv]
  return await new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { stdio: 'inherit', env: environment })
    const stop = (): void => void child.kill('SIGTERM')
    signal.addEventListener('abort', stop, { once: true })
    child.once('error', reject)
    child.once('exit', (code) => {
      signal.removeEventListener('abort', stop)
      resolve(code ?? 1)
    })
  })
}
