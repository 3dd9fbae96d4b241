/**
 * Settings of malloc and Node for the daemons that do little and live beside the pods. Measured one by one with an idle kiln-update on
 * 2026-11-25, private memory without any 26.4 MiB: one malloc arena 2.0 MiB less; a young generation of 1 MiB 1.5 MiB less; no V8
 * worker threads 0.8 MiB less. CPU at start was 265 to 334 ms, which is within what one run differs from the next. kiln-kv keeps Node's
 * own settings, its throughput needs them. `--optimize-for-size` gained 1.5 MiB, `--single-threaded-gc` nothing, `--lite-mode` 10 MiB for
 * 40 % more CPU at start.
 */
const frugal = {
  environment: ['MALLOC_ARENA_MAX=1'],
  flags: ['--max-semi-space-size=1', '--v8-pool-size=0'],
}

const none = { environment: [], flags: [] }

const frugalPrograms = new Set(['kiln-runtime', 'kiln-update'])

/** The script `/usr/bin/<name>` of the image. */
export function imageLauncher(name: string): string {
  const { environment, flags } = frugalPrograms.has(name) ? frugal : none
  const command = ['/usr/bin/node', ...flags, `/usr/lib/kiln/${name}.mjs`].join(' ')
  const exports = environment.map((setting) => `export ${setting}\n`).join('')
  return `#!/bin/sh\n${exports}exec ${command} "$@"\n`
}
