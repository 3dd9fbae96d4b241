import { execFile } from 'node:child_process'
import { cpus, loadavg } from 'node:os'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import type { GeneratorOrder, GeneratorResult } from './generator.ts'
import { runH2load } from './h2load.ts'
import { type Subject, startSubject, subjectFlags } from './subjects.ts'
import { preloadOf, type Workload, workloads } from './workloads.ts'

const usage = `kiln bench kv: kiln-kv beside etcd 3.5 of Debian trixie, alternately in one run, on this machine.

  --only PATTERN    rows whose name matches
  --windows N       windows of each for a row (default 5)
  --seconds N       length of a window (default 10)
  --warm-up N       seconds before the first window (default 30)
  --data DIR        folder for both servers' data (default: the system's for temporary files)
  --long            also the row of ten minutes with a compaction every minute
  --long-seconds N  its length (default 600)
  --check           exit 1 if a ratio is under what it must be
  --json            print JSON
`

type Window = {
  ratePerSecond: number
  cpuMicros: number
  p50Ms: number
  p99Ms: number
  perSync: number
  failures: number
  /** The generator took more of a core than it may: the window says nothing. */
  isVoid: boolean
}
type Side = { windows: Window[]; rssMiB: number }
export type Row = { workload: Workload; etcd: Side; kiln: Side }

const generatorCpuMax = 0.85
const voidRetriesMax = 2
const idleLookMs = 250
const idleShareMax = 0.03
const idleWaitMs = 15_000
/** Percentiles of windows vary; what is within this is no worse. */
const p99Slack = 1.05

/** Runs a generator as a process of its own. */
async function drive(
  subject: Subject,
  order: Omit<GeneratorOrder, 'host' | 'port'>,
): Promise<GeneratorResult> {
  const { host, port, ca, token } = subject
  const argument = JSON.stringify({ ...order, host, port, ca, token })
  const script = join(import.meta.dirname, 'generator.ts')
  const flags = ['--disable-warning=ExperimentalWarning', script, argument]
  const { stdout } = await promisify(execFile)(process.execPath, flags, { maxBuffer: 1 << 20 })
  return JSON.parse(stdout) as GeneratorResult
}

/** Waits until a server has nothing more to do, so that what it put off is counted too. */
async function settle(subject: Subject): Promise<void> {
  const deadline = performance.now() + idleWaitMs
  let before = await subject.cpuSeconds()
  while (performance.now() < deadline) {
    await new Promise((resume) => setTimeout(resume, idleLookMs))
    const now = await subject.cpuSeconds()
    if ((now - before) / (idleLookMs / 1000) <= idleShareMax) return
    before = now
  }
}

async function measure(subject: Subject, workload: Workload, options: Options): Promise<Window> {
  const seconds = workload.isLong ? options.longSeconds : options.seconds
  await settle(subject)
  const [cpu, syncs] = [await subject.cpuSeconds(), await subject.syncs()]
  const result = workload.isNeutral
    ? await runH2load(workload, { ...subject, seconds })
    : await drive(subject, {
        workload: workload.name,
        seconds,
        ...(workload.isLong ? { compactEverySeconds: seconds / 10 } : {}),
      })
  await settle(subject)
  const [cpuAfter, syncsAfter] = [await subject.cpuSeconds(), await subject.syncs()]
  return {
    ratePerSecond: result.requests / result.seconds,
    cpuMicros: ((cpuAfter - cpu) / Math.max(1, result.requests)) * 1e6,
    p50Ms: result.p50Ms,
    p99Ms: result.p99Ms,
    perSync: result.requests / Math.max(1, syncsAfter - syncs),
    failures: result.failures,
    isVoid: result.cpuSeconds / result.seconds > generatorCpuMax,
  }
}

type Options = {
  windows: number
  seconds: number
  longSeconds: number
  warmUp: number
  data?: string | undefined
}

async function compare(workload: Workload, options: Options): Promise<Row> {
  const subjects: Subject[] = []
  try {
    const { members, tls, auth } = workload
    const common = { members, tls, folder: options.data }
    subjects.push(await startSubject(auth ? 'kiln-kv' : 'etcd', common))
    subjects.push(await startSubject('kiln-kv', { ...common, users: auth === true }))
    const sides = subjects.map((): Side => ({ windows: [], rssMiB: 0 }))
    for (const subject of subjects) {
      const preload = preloadOf(workload)
      await drive(subject, { workload: preload.name, count: preload.keys })
      await drive(subject, { workload: workload.name, seconds: Math.max(1, options.warmUp / 2) })
    }
    const windows = workload.isLong ? 1 : options.windows
    for (let round = 0; round < windows; round++) {
      // Each begins as often as the other.
      for (const at of round % 2 === 0 ? [0, 1] : [1, 0]) {
        let window = await measure(subjects[at]!, workload, options)
        for (let retry = 0; window.isVoid && retry < voidRetriesMax; retry++)
          window = await measure(subjects[at]!, workload, options)
        sides[at]!.windows.push(window)
      }
    }
    for (const [at, subject] of subjects.entries()) sides[at]!.rssMiB = await subject.rssMiB()
    return { workload, etcd: sides[0]!, kiln: sides[1]! }
  } finally {
    await Promise.all(subjects.map((subject) => subject.stop()))
  }
}

/** Median of a figure over the windows that say something. */
export function median(side: Side, of: (window: Window) => number): number {
  const good = side.windows.filter(({ isVoid }) => !isVoid)
  const values = (good.length > 0 ? good : side.windows).map(of).sort((a, b) => a - b)
  const middle = Math.floor(values.length / 2)
  return values.length % 2 === 1 ? values[middle]! : (values[middle - 1]! + values[middle]!) / 2
}

/** What a row falls short of; empty when it reaches what it must. */
export function shortfalls({ workload, etcd, kiln }: Row): string[] {
  const rate = median(kiln, (one) => one.ratePerSecond) / median(etcd, (one) => one.ratePerSecond)
  const cpu = median(kiln, (one) => one.cpuMicros) / median(etcd, (one) => one.cpuMicros)
  const found: string[] = []
  if (rate < workload.atLeast) found.push(`rate ${rate.toFixed(2)} x, at least ${workload.atLeast} x`)
  if (cpu > workload.cpuAtMost) found.push(`CPU ${cpu.toFixed(2)}, at most ${workload.cpuAtMost}`)
  const [p99, peerP99] = [median(kiln, (one) => one.p99Ms), median(etcd, (one) => one.p99Ms)]
  if (p99 > peerP99 * p99Slack) found.push(`p99 ${p99.toFixed(1)} ms, etcd ${peerP99.toFixed(1)} ms`)
  const { rssAtMost } = workload
  const rss = kiln.rssMiB / etcd.rssMiB
  if (rssAtMost !== undefined && rss > rssAtMost) {
    found.push(`RSS ${rss.toFixed(2)} x, at most ${rssAtMost} x`)
  }
  if (kiln.windows.some(({ failures }) => failures > 0)) found.push('requests failed')
  if ([etcd, kiln].some((side) => side.windows.every(({ isVoid }) => isVoid)))
    found.push('void: the generator was the bottleneck')
  return found
}

/** The lines of a row, etcd's and ours, and the ratio. */
export function describeRow(row: Row): string[] {
  const side = (name: string, of: Side): string => {
    const rates = of.windows.map((one) => one.ratePerSecond)
    const spread = `${Math.round(Math.min(...rates))} to ${Math.round(Math.max(...rates))}`
    const figure = (what: (window: Window) => number, digits: number): string =>
      median(of, what).toFixed(digits)
    return (
      `  ${name.padEnd(8)} ${figure((one) => one.ratePerSecond, 0).padStart(7)}/s (${spread})` +
      `  CPU ${figure((one) => one.cpuMicros, 1)} us  p50 ${figure((one) => one.p50Ms, 2)} ms` +
      `  p99 ${figure((one) => one.p99Ms, 1)} ms  ${figure((one) => one.perSync, 1)} a sync  RSS ${Math.round(of.rssMiB)} MiB`
    )
  }
  const rate = median(row.kiln, (one) => one.ratePerSecond) / median(row.etcd, (one) => one.ratePerSecond)
  const cpu = median(row.kiln, (one) => one.cpuMicros) / median(row.etcd, (one) => one.cpuMicros)
  const short = shortfalls(row)
  return [
    `${row.workload.name}: ${row.workload.title}`,
    side(row.workload.auth ? 'no users' : 'etcd', row.etcd),
    side(row.workload.auth ? 'users' : 'kiln-kv', row.kiln),
    `  ratio    ${rate.toFixed(2)} x the rate, ${cpu.toFixed(2)} x the CPU; ${short.length > 0 ? `SHORT: ${short.join('; ')}` : `at least ${row.workload.atLeast} x and ${row.workload.cpuAtMost}, aim ${row.workload.aim} x`}`,
  ]
}

async function main(argv: string[]): Promise<number> {
  const { values } = parseArgs({
    args: argv,
    options: {
      only: { type: 'string', default: '.' },
      windows: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '10' },
      'warm-up': { type: 'string', default: '30' },
      data: { type: 'string' },
      long: { type: 'boolean', default: false },
      'long-seconds': { type: 'string', default: '600' },
      check: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(usage)
    return 0
  }
  const options = {
    windows: positive('--windows', values.windows),
    seconds: positive('--seconds', values.seconds),
    longSeconds: positive('--long-seconds', values['long-seconds']),
    warmUp: positive('--warm-up', values['warm-up']),
    data: values.data,
  }
  const chosen = workloads.filter(
    ({ name, isLong }) => new RegExp(values.only).test(name) && (!isLong || values.long),
  )
  if (chosen.length === 0) throw new Error(`no row matches ${values.only}`)
  const say = (line: string): void => void (values.json ? process.stderr : process.stdout).write(`${line}\n`)
  say(
    `${cpus().length} x ${cpus()[0]?.model.trim()}, load ${loadavg()[0]!.toFixed(1)}, node ${process.version}`,
  )
  say(`${options.windows} windows of ${options.seconds} s each, flags of both: ${subjectFlags.join(' ')}`)
  const rows: Row[] = []
  for (const workload of chosen) {
    const row = await compare(workload, options)
    rows.push(row)
    for (const line of describeRow(row)) say(line)
  }
  if (values.json) process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`)
  const short = rows.filter((row) => shortfalls(row).length > 0)
  say(`${rows.length - short.length} of ${rows.length} rows reach what they must`)
  return values.check && short.length > 0 ? 1 : 0
}

function positive(flag: string, text: string): number {
  const value = Number(text)
  if (!(value > 0 && value <= 3600)) throw new Error(`${flag} is a number from 1 to 3600, not ${text}`)
  return value
}

if (import.meta.main) {
  try {
    process.exit(await main(process.argv.slice(2)))
  } catch (error) {
    process.stderr.write(`kiln bench kv: ${(error as Error).message}\n`)
    process.exit(2)
  }
}
