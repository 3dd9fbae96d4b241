import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fetchPackage } from '../testing/etcdctl.ts'
import type { GeneratorResult } from './generator.ts'
import type { Workload } from './workloads.ts'

/** Of Debian trixie; its C library comes along, since this system's may be older. */
const libraries = [
  ...['libc6', 'libstdc++6', 'libgcc-s1', 'libjemalloc2', 'libev4t64', 'libnghttp2-14', 'libssl3t64'],
  ...['zlib1g', 'libzstd1'],
]
const ticksPerSecond = 100
const cpuLookMs = 100

/** h2load of nghttp2 as a generator that is nobody's: one request again and again, as fast as it is answered. */
export async function runH2load(
  workload: Workload,
  { host, port, seconds }: { host: string; port: number; seconds: number },
): Promise<GeneratorResult> {
  const program = await h2loadCommand()
  const folder = await mkdtemp(join(tmpdir(), 'kiln-h2load-'))
  try {
    const [body, log] = [join(folder, 'body'), join(folder, 'log')]
    const message = workload.request(1)
    const prefix = Buffer.alloc(5)
    prefix.writeUInt32BE(message.length, 1)
    await writeFile(body, Buffer.concat([prefix, message]))
    const { text, cpuSeconds } = await runCounted([
      ...program,
      ...['-t', '1', '-c', String(workload.connections), '-D', String(seconds), '-d', body],
      ...['-m', String(workload.streams / workload.connections), `--log-file=${log}`],
      ...['-H', 'content-type: application/grpc', '-H', 'te: trailers'],
      `http://${host}:${port}${workload.path}`,
    ])
    return { ...readSummary(text), ...readLatencies(await readFile(log, 'latin1')), seconds, cpuSeconds }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** `requests: 10 total, 10 started, 10 done, 9 succeeded, 1 failed, 0 errored, 0 timeout` */
export function readSummary(text: string): { requests: number; failures: number } {
  const found = /(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/.exec(text)
  if (!found) throw new Error(`h2load said nothing of its requests: ${text.slice(-500)}`)
  const [, succeeded, failed, errored, timeout] = found.map(Number)
  return { requests: succeeded!, failures: failed! + errored! + timeout! }
}

/** A line a request: when it began, its status, and how long it took, in microseconds. */
export function readLatencies(log: string): { p50Ms: number; p99Ms: number } {
  const took = log
    .split('\n')
    .map((line) => Number(line.split('\t')[2]) / 1000)
    .filter((ms) => !Number.isNaN(ms))
    .sort((a, b) => a - b)
  const at = (part: number): number => took[Math.floor(took.length * part)] ?? 0
  return { p50Ms: at(0.5), p99Ms: at(0.99) }
}

async function h2loadCommand(): Promise<string[]> {
  const folders = await Promise.all(
    libraries.map(async (name) => {
      const parent = join(await fetchPackage(name), 'usr/lib')
      const triplet = (await readdir(parent)).find((each) => each.endsWith('-linux-gnu'))
      return join(parent, triplet ?? '')
    }),
  )
  const program = join(await fetchPackage('nghttp2-client'), 'usr/bin/h2load')
  const loader = (await readdir(folders[0]!)).find((file) => file.startsWith('ld-linux'))
  if (!loader || !existsSync(program)) throw new Error('the packages of h2load have not what it needs')
  return [join(folders[0]!, loader), '--library-path', folders.join(':'), program]
}

/** Runs a program; its CPU time is what was last seen of it. */
function runCounted([command, ...args]: string[]): Promise<{ text: string; cpuSeconds: number }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command!, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    let cpuSeconds = 0
    const look = setInterval(() => {
      void readFile(`/proc/${child.pid}/stat`, 'utf8').then(
        (stat) => {
          const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
          cpuSeconds = (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
        },
        () => undefined,
      )
    }, cpuLookMs)
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        text = (text + chunk.toString('latin1')).slice(-64 * 1024)
      })
    }
    child.once('error', reject)
    child.once('close', (code) => {
      clearInterval(look)
      if (code === 0) resolve({ text, cpuSeconds })
      else reject(new Error(`h2load ended with ${code}: ${text.slice(-1000)}`))
    })
  })
}
