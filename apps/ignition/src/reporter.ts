import { closeSync, constants, existsSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import type { StageReport } from '@kiln/schemas'
import type { Clock } from '@kiln/service'
import type { Http } from './http-request.ts'

type ReportedStage = 'fetch' | 'disks' | 'image' | 'files'

/** Says what happens: lines on the console, markers for whoever watches it, reports to kiln-boot. */
export type Reporter = {
  say(line: string): void
  running(stage: ReportedStage): void
  done(stage: ReportedStage, installed?: InstalledSystem): Promise<void>
  failed(failure: Failure): Promise<void>
}

/** What a machine runs once it is installed. */
export type InstalledSystem = { version: string; slot: 'a'; generation: number }

export type Failure = {
  stage: string
  message: string
  /** All of it in one line: stage, place, cause, remedy, and how to try again. */
  reason: string
  path?: string | undefined
  line?: number | undefined
  column?: number | undefined
}

export type ReporterSettings = {
  http: Http
  bootUrl: string | undefined
  machine: string | undefined
  clock: Clock
  /** Takes lines and markers, line break included. */
  write(text: string): void
  /** Whether this is the machine's own kernel (uptime and boot id are its own). */
  own: boolean
}

const reportTimeoutMs = 4_000
const failureAttempts = 5

export function createReporter(settings: ReporterSettings): Reporter {
  const bootId = settings.own ? readBootId() : `simulated-${process.pid}-${Date.now()}`
  const say = (line: string): void => {
    settings.write(`${line}\n`)
  }
  const mark = (stage: string, status: string, detail = ''): void =>
    say(`MARK:${stage} uptime=${uptimeSeconds(settings.own).toFixed(2)} status=${status}${detail}`)
  let sending: Promise<unknown> = Promise.resolve()

  const post = async (report: Omit<StageReport, 'uptimeSeconds' | 'bootId'>): Promise<boolean> => {
    if (!settings.bootUrl || !settings.machine) return true
    const body: StageReport = { ...report, uptimeSeconds: uptimeSeconds(settings.own), bootId }
    try {
      const reply = await settings.http({
        url: `${settings.bootUrl}/v1/machines/${encodeURIComponent(settings.machine)}/report`,
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
        headersTimeoutMs: reportTimeoutMs,
        bodyBytesMax: 64 * 1024,
      })
      return reply.status < 500
    } catch {
      return false
    }
  }

  return {
    say,
    running(stage) {
      mark(stage, 'running')
      // Not awaited: the work goes on. The order of reports is kept by the chain.
      sending = sending.then(() => post({ stage, status: 'running' }))
    },
    async done(stage, installed) {
      mark(stage, 'done', ` cpu=${spentSeconds().toFixed(2)}`)
      sending = sending.then(() => post({ stage, status: 'done', ...installed }))
      await sending
    },
    async failed({ stage, message, reason, path, line, column }) {
      const reported = reportedStage(stage)
      mark(reported, 'failed')
      tellHost(reason)
      await sending
      for (let attempt = 1; attempt <= failureAttempts; attempt++) {
        const sent = await post({
          stage: reported,
          status: 'failed',
          message: message.slice(0, 2000),
          ...(path ? { path: path.slice(0, 500) } : {}),
          ...(line ? { line } : {}),
          ...(column ? { column } : {}),
        })
        if (sent) return
        await new Promise<void>((resolve) => settings.clock.after(attempt * 1000, resolve))
      }
    },
  }
}

/** Processor time in seconds of this process since its start, and of its children that have ended (proc(5), stat). */
function spentSeconds(): number {
  const { user, system } = process.cpuUsage()
  const stat = readFileSync('/proc/self/stat', 'utf8')
  // Behind the name, which may have spaces: cutime and cstime are fields 16 and 17 of the line, in hundredths.
  const [children = 0, childrenInKernel = 0] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(13, 15)
    .map(Number)
  return (user + system) / 1e6 + (children + childrenInKernel) / 100
}

/** The stage of the machine's way that a stage of ours belongs to. */
function reportedStage(stage: string): ReportedStage {
  if (stage === 'fetch' || stage === 'fetch-offline' || stage === 'kargs') return 'fetch'
  if (stage === 'disks' || stage === 'image') return stage
  return 'files'
}

/** Tells the machine's host over the virtio port kiln.report, in case there is no network. */
function tellHost(line: string): void {
  const folder = '/sys/class/virtio-ports'
  if (!existsSync(folder)) return
  try {
    for (const port of readdirSync(folder)) {
      if (readFileSync(`${folder}/${port}/name`, 'utf8').trim() === 'kiln.report') {
        // Without a listener on the other side a write would wait for ever.
        const descriptor = openSync(`/dev/${port}`, constants.O_WRONLY | constants.O_NONBLOCK)
        writeSync(descriptor, `${line}\n`)
        closeSync(descriptor)
      }
    }
  } catch {
    // The port is a second way; the console has the reason anyway.
  }
}

function uptimeSeconds(own: boolean): number {
  if (!own) return process.uptime()
  return Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
}

/** Id of this boot of the kernel. */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}
