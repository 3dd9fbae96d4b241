import { execFile } from 'node:child_process'
import { mkdir, readdir, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Fault } from '@kiln/service'

const run = promisify(execFile)
const sources = join(import.meta.dirname, '../native')
const warnings = [
  '-std=gnu11',
  '-Wall',
  '-Wextra',
  '-Wshadow',
  '-Wconversion',
  '-Wno-sign-conversion',
  '-Werror',
]
const parts = [
  ...['main.c', 'plan.c', 'process.c', 'setup.c', 'become.c', 'log.c', 'monitor.c'],
  ...['oci-front.c', 'oci-ask.c', 'oci-container.c', 'oci-commands.c', 'oci-create.c', 'oci-exec.c'],
  ...['oci-init.c', 'oci-namespaces.c', 'oci-mounts.c', 'oci-console.c', 'oci-cgroup.c', 'oci-hooks.c'],
]

/**
 * Compiles `kiln-init` (static, so that it runs in any root) to `outDir/native/kiln-init` unless it is newer than its
 * sources. Needs `cc` and the C library's headers: Debian's gcc and libc6-dev.
 */
export async function buildNative(outDir: string): Promise<string> {
  const output = join(outDir, 'native/kiln-init')
  if (await newerThanSources(output)) return output
  await mkdir(join(outDir, 'native'), { recursive: true })
  const flags = [
    '-static',
    '-s',
    '-O2',
    '-fstack-protector-strong',
    '-D_FORTIFY_SOURCE=2',
    '-Wl,--build-id=none',
  ]
  // Two builds may run at a time; what both make is the same.
  const unfinished = `${output}.${process.pid}`
  await compile([...flags, '-o', unfinished, ...parts])
  await rename(unfinished, output)
  return output
}

/** Compiles the plan parser with its fuzzing driver under the address and undefined-behaviour sanitizers. */
export async function buildFuzz(output: string): Promise<string> {
  const flags = ['-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all']
  await compile([...flags, '-o', output, '../fuzz/fuzz.c', 'plan.c'])
  return output
}

async function compile(args: string[]): Promise<void> {
  try {
    await run('cc', [...warnings, ...args], { cwd: sources })
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    throw new Fault('NATIVE_BUILD_FAILED', 'compiling kiln-init failed', {
      cause: error,
      remedy: missing ? 'install gcc and libc6-dev' : undefined,
    })
  }
}

async function newerThanSources(output: string): Promise<boolean> {
  const built = await stat(output).catch(() => undefined)
  if (!built) return false
  for (const name of await readdir(sources)) {
    if ((await stat(join(sources, name))).mtimeMs >= built.mtimeMs) return false
  }
  return true
}
