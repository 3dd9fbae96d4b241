/**
 * Runs the etcdctl conformance script against kiln-kv members of its own.
 *
 *   node apps/kv/src/conformance/etcdctl.ts [--script FILE] [--only REGEX] [--members 1|3] [--tls h2|http1]
 *
 * Without options it runs all sections, spread over several clusters at once: plain, of three members, and with TLS. Prints the script's
 * PASS and FAIL lines, what is skipped and why, the counts of each section, and `N passed, M failed` at the end.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { fetchEtcd, fetchEtcdctl } from '../testing/etcdctl.ts'
import { startMembers } from '../testing/member-process.ts'
import { type TestCertificates, writeTestCertificates } from '../testing/test-certificates.ts'

const repository = resolve(import.meta.dirname, '../../../..')
export const scriptDefault = resolve(repository, '../shared/conformance/etcdctl.sh')

/** One run of the script: which sections, against what. */
export type ConformanceRun = {
  title: string
  only: string
  members: number
  /** With TLS, curl speaks HTTP/2 or HTTP/1.1. */
  tls?: 'h2' | 'http1'
}

/** All sections there are, so that the slow ones run side by side; some again on three members and with TLS. */
const everything: ConformanceRun[] = [
  { title: 'keys', only: '^(put|get|del|txn|compaction|gateway|cleanup)$', members: 1 },
  { title: 'time', only: '^(lease|watch|maintenance)$', members: 1 },
  { title: 'users', only: '^(lock|auth|cluster)$', members: 1 },
  { title: 'three members', only: '^(watch|cluster|auth)$', members: 3 },
  { title: 'TLS, HTTP/2', only: '^(del|gateway)$', members: 1, tls: 'h2' },
  { title: 'TLS, HTTP/1.1', only: '^gateway$', members: 1, tls: 'http1' },
]

export type SectionCounts = { passed: number; failed: number; skipped: number }

export type ConformanceCounts = SectionCounts & { sections: Map<string, SectionCounts> }

export type ConformanceOptions = {
  script?: string
  runs?: ConformanceRun[]
  /** Runs at the same time. */
  lanes?: number
  print: (line: string) => void
}

export async function runEtcdctlConformance(options: ConformanceOptions): Promise<ConformanceCounts> {
  const { print, runs = everything, lanes = 3, script = scriptDefault } = options
  const counts: ConformanceCounts = { passed: 0, failed: 0, skipped: 0, sections: new Map() }
  if (!existsSync(script)) {
    print(`SKIP all: there is no ${script}`)
    counts.skipped++
    return counts
  }
  const programs = { etcdctl: await fetchEtcdctl(), ...(await fetchEtcd()) }
  const folder = await mkdtemp(join(tmpdir(), 'kiln-conformance-'))
  try {
    const tls = runs.some((run) => run.tls) ? await writeTestCertificates(folder) : undefined
    const waiting = [...runs]
    const lane = async (): Promise<void> => {
      for (let run = waiting.shift(); run; run = waiting.shift()) {
        const label = runs.length > 1 ? ` [${run.title}]` : ''
        const note = notes(counts, (line) => print(line + label))
        await runScript({ script, programs, run, tls: run.tls && tls }, note)
      }
    }
    await Promise.all(Array.from({ length: Math.min(lanes, runs.length) }, lane))
    return counts
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function runScript(
  options: {
    script: string
    programs: { etcdctl: string; etcdutl: string; etcd: string }
    run: ConformanceRun
    tls: TestCertificates | undefined
  },
  onLine: (line: string) => void,
): Promise<void> {
  const { script, programs, run, tls } = options
  const cluster = await startMembers({ count: run.members, ...(tls ? { tls } : {}) })
  try {
    const child = spawn('bash', [script], {
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        ENDPOINT: cluster.endpoints.join(','),
        ETCDCTL: programs.etcdctl,
        ETCDUTL: programs.etcdutl,
        ETCD: programs.etcd,
        GATEWAY: '1',
        ONLY: run.only,
        ...(tls ? tlsFlags(tls, run.tls === 'http1') : {}),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    for await (const line of createInterface({ input: child.stdout })) onLine(line)
  } finally {
    await cluster.stop()
  }
}

/** How etcdctl, curl and make-mirror are told of the certificates. */
function tlsFlags({ ca, cert, key }: TestCertificates, isHttp1: boolean): Record<string, string> {
  const files = `--cacert ${ca} --cert ${cert} --key ${key}`
  return {
    EXTRA: files,
    CURLX: `${isHttp1 ? '--http1.1' : '--http2'} ${files}`,
    MIRRORX: `--dest-cacert ${ca} --dest-cert ${cert} --dest-key ${key}`,
  }
}

/** Counts the lines of one run; what follows a failure explains it. */
function notes(counts: ConformanceCounts, print: (line: string) => void): (line: string) => void {
  return (line) => {
    if (/^\d+ passed, \d+ failed$/.test(line)) return
    const result = /^(PASS|FAIL) (.*)$/.exec(line)
    print(line)
    if (!result) return
    const [, verdict, name = ''] = result
    const section = name.split(':')[0]!
    const ofSection = counts.sections.get(section) ?? { passed: 0, failed: 0, skipped: 0 }
    counts.sections.set(section, ofSection)
    const outcome = verdict === 'PASS' ? 'passed' : 'failed'
    counts[outcome]++
    ofSection[outcome]++
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      script: { type: 'string' },
      only: { type: 'string' },
      members: { type: 'string' },
      tls: { type: 'string' },
    },
  })
  const { only, members, tls } = values
  if (tls !== undefined && tls !== 'h2' && tls !== 'http1') throw new Error('--tls is h2 or http1')
  const single: ConformanceRun = {
    title: 'as asked',
    only: only ?? '.',
    members: Number(members ?? 1),
    ...(tls ? { tls } : {}),
  }
  const counts = await runEtcdctlConformance({
    ...(values.script ? { script: values.script } : {}),
    ...(only || members || tls ? { runs: [single] } : {}),
    print: (line) => void process.stdout.write(`${line}\n`),
  })
  for (const [section, { passed, failed, skipped }] of counts.sections) {
    process.stdout.write(`${section.padEnd(12)} ${passed} passed, ${failed} failed, ${skipped} skipped\n`)
  }
  if (counts.skipped > 0) process.stdout.write(`${counts.skipped} skipped\n`)
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed\n`)
  process.exitCode = counts.failed > 0 ? 1 : 0
}
