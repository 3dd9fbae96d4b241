import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { parseArgs } from 'node:util'
import { defaultSpec } from '@kiln/oci-runtime'
import { buildCommand } from '../testing/build-command.ts'
import { startPlanner } from '../testing/planner-process.ts'

const usage = `kiln bench runtime: kiln-oci, with its planner as a service and without, beside Debian's runc and crun, alternately in
one run, on this machine. The service's CPU time counts.

  --rounds N   containers of each for a row (default 20)
  --json       print JSON
`

type Sample = { wallMs: number; cpuMs: number }
/** A runtime to measure; `cpuMs` is what a process beside it has used. */
type Contender = { name: string; command: string; env?: Record<string, string>; cpuMs?: () => number }
type Row = { name: string; medians: Record<string, Sample> }

/** A program's wall time and, by what the children of this process have used, its CPU time. */
function measure({ command, env, cpuMs }: Contender, args: string[], cwd: string): Sample {
  const used = () => childrenCpuMs() + (cpuMs?.() ?? 0)
  const before = used()
  const start = performance.now()
  // No pipe: a created container would hold it open, and this would wait for its end.
  const { status } = spawnSync(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const wallMs = performance.now() - start
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed`)
  return { wallMs, cpuMs: used() - before }
}

/** `cutime` and `cstime` of proc(5), in clock ticks of 10 ms: only the sum over a row means something. */
function childrenCpuMs(): number {
  const text = readFileSync('/proc/self/stat', 'utf8')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[13]) + Number(fields[14])) * 10
}

function sum(samples: Sample[]): Sample {
  return samples.reduce((a, b) => ({ wallMs: a.wallMs + b.wallMs, cpuMs: a.cpuMs + b.cpuMs }))
}

/** The median of the wall times; CPU is too coarse for one, so its mean. */
function typical(samples: Sample[]): Sample {
  const walls = samples.map((sample) => sample.wallMs).sort((a, b) => a - b)
  return { wallMs: walls[walls.length >> 1]!, cpuMs: sum(samples).cpuMs / samples.length }
}

/** A bundle of its own for each container: nothing may be kept from one for the next. */
function makeBundle(base: string, busybox: string, name: string, args: string[]): string {
  const bundle = join(base, name)
  mkdirSync(join(bundle, 'rootfs/bin'), { recursive: true })
  for (const folder of ['proc', 'dev', 'sys', 'tmp']) mkdirSync(join(bundle, 'rootfs', folder))
  copyFileSync(busybox, join(bundle, 'rootfs/bin/busybox'))
  for (const applet of ['true', 'sleep', 'sh']) symlinkSync('busybox', join(bundle, 'rootfs/bin', applet))
  // No cgroup mount nor namespace: crun refuses both on a hybrid host.
  const spec = defaultSpec({ cgroupNamespace: false }) as { process: object; mounts: { type: string }[] }
  const config = {
    ...spec,
    // What Debian's crun still takes.
    ociVersion: '1.0.2',
    hostname: name,
    process: { ...spec.process, terminal: false, args, rlimits: [] },
    mounts: spec.mounts.filter((mount) => mount.type !== 'cgroup'),
  }
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(config))
  return bundle
}

const rows: Record<string, (runtime: Contender, bundle: (args: string[]) => string, id: string) => Sample> = {
  'run /bin/true': (runtime, bundle, id) => measure(runtime, ['run', id], bundle(['/bin/true'])),
  'create, start, delete': (runtime, bundle, id) => {
    const at = bundle(['/bin/sleep', '100'])
    const steps = [
      ['create', id],
      ['start', id],
      ['delete', '--force', id],
    ]
    return sum(steps.map((args) => measure(runtime, args, at)))
  },
  'exec /bin/true': (runtime, bundle, id) => {
    const at = bundle(['/bin/sleep', '100'])
    measure(runtime, ['create', id], at)
    measure(runtime, ['start', id], at)
    try {
      return measure(runtime, ['exec', id, '/bin/true'], at)
    } finally {
      measure(runtime, ['delete', '--force', id], at)
    }
  },
}

function find(program: string): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((folder) => join(folder, program))
    .find((path) => existsSync(path))
}

const { values } = parseArgs({
  options: { rounds: { type: 'string' }, json: { type: 'boolean' }, help: { type: 'boolean' } },
})
const rounds = Number(values.rounds ?? 20)
const busybox = find('busybox')
if (values.help) process.stdout.write(usage)
else if (process.geteuid?.() !== 0 || !busybox) {
  process.stdout.write(
    `SKIP all (${busybox ? 'it needs root' : 'there is no busybox: install busybox-static'})\n`,
  )
} else if (existsSync('/sys/fs/cgroup/unified') && process.env['KILN_BENCH_HIDDEN'] !== '1') {
  // crun refuses a hybrid host: in a mount namespace of our own the v2 part is not there.
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  const script = 'umount /sys/fs/cgroup/unified; exec "$@"'
  const { status } = spawnSync(
    'unshare',
    ['-m', '--propagation', 'private', 'sh', '-c', script, 'sh', ...again],
    {
      stdio: 'inherit',
      env: { ...process.env, KILN_BENCH_HIDDEN: '1' },
    },
  )
  process.exitCode = status ?? 1
} else {
  const base = mkdtempSync(join(tmpdir(), 'kiln-bench-'))
  try {
    const ours = await buildCommand(base)
    const socket = join(base, 'planner/socket')
    const planner = await startPlanner(ours, socket)
    const place = (value: string) => ({ KILN_OCI_PLANNER_SOCKET: value })
    const runtimes: Contender[] = [
      { name: 'kiln-oci', command: ours, env: place(socket), cpuMs: planner.cpuMs },
      { name: 'kiln-oci alone', command: ours, env: place('') },
      ...['runc', 'crun'].flatMap((name) => {
        const command = find(name)
        return command ? [{ name, command }] : []
      }),
    ]
    const results: Row[] = []
    let made = 0
    for (const [name, run] of Object.entries(rows)) {
      const samples = new Map(runtimes.map((runtime) => [runtime, [] as Sample[]]))
      for (let round = 0; round <= rounds; round++) {
        for (const runtime of runtimes) {
          const id = `kiln-bench-${process.pid}-${++made}`
          const sample = run(runtime, (args) => makeBundle(base, busybox, id, args), id)
          // The first of each fills caches and is not counted.
          if (round > 0) samples.get(runtime)!.push(sample)
          rmSync(join(base, id), { recursive: true })
        }
      }
      const medians = Object.fromEntries([...samples].map(([runtime, list]) => [runtime.name, typical(list)]))
      results.push({ name, medians })
    }
    await planner.stop()
    const load = loadavg()[0]!.toFixed(1)
    if (values.json) process.stdout.write(`${JSON.stringify({ load, rounds, rows: results })}\n`)
    else {
      for (const { name, medians } of results) {
        const cells = Object.entries(medians).map(
          ([runtime, { wallMs, cpuMs }]) => `${runtime} ${wallMs.toFixed(1)} ms (CPU ${cpuMs.toFixed(1)})`,
        )
        process.stdout.write(`${name.padEnd(24)}${cells.join('   ')}\n`)
      }
      process.stdout.write(`median of ${rounds}, CPU mean; load ${load}; kiln-oci alone: one Node a call\n`)
    }
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
}
