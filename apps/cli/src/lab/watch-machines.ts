import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { MachineRecord } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { SerialLog } from '@kiln/vm'
import {
  describeProgress,
  type MachineProgress,
  newProgress,
  onConsoleLine,
  onRecord,
} from '../progress/machine-progress.ts'
import type { StepReport } from '../progress/steps.ts'
import type { LabRecord, StateFolder } from './state-folder.ts'

const lookIntervalMs = 500
const consoleLinesShown = 30

/** A machine did not come up: its console's last lines belong to the fault. */
export class MachineFailed extends Fault {
  readonly machine: string
  readonly consoleLines: string[]

  constructor(machine: string, sentence: string, consoleLines: string[], code = 'MACHINE_FAILED') {
    super(code, `${machine}: ${sentence}`)
    this.machine = machine
    this.consoleLines = consoleLines
  }
}

/**
 * Follows all machines of a cluster until each is ready; throws `MachineFailed` for the first that fails, or that is
 * not ready when the time is over. Returns each machine's progress.
 */
export async function watchUntilReady(at: {
  state: StateFolder
  lab: LabRecord
  records: () => Promise<MachineRecord[]>
  /** Names of machines that run; one that does not has failed. */
  running: () => Promise<ReadonlySet<string>>
  report: StepReport
  timeoutMs: number
  signal: AbortSignal
}): Promise<MachineProgress[]> {
  const started = performance.now()
  const seconds = (): number => (performance.now() - started) / 1000
  const watched = at.lab.machines.map((machine) => ({
    machine,
    log: new SerialLog(at.state.machine(machine.name).serialLog, 'start'),
    progress: newProgress(machine.name, 0),
  }))
  const update = (one: Watched, next: MachineProgress): void => {
    const changed = next.stage !== one.progress.stage || next.state !== one.progress.state
    one.progress = next
    if (changed) at.report.event(describeProgress(next, seconds()))
  }
  for (const one of watched) {
    one.log.onLine((line) => update(one, onConsoleLine(one.progress, line, seconds())))
  }
  try {
    for (;;) {
      if (at.signal.aborted) throw new Fault('CANCELLED', 'cancelled')
      const [records, running] = await Promise.all([at.records().catch(() => []), at.running()])
      for (const one of watched) {
        one.log.poll()
        const record = records.find(({ mac }) => mac === one.machine.bootMac)
        if (record) update(one, onRecord(one.progress, record, seconds()))
        if (one.progress.state === 'failed') {
          await settle(one, at.records, update, seconds)
          throw failure(one.log, one.progress)
        }
        if (!running.has(one.machine.name)) {
          throw new MachineFailed(one.machine.name, 'it switched itself off', relevantLines(one.log.lines))
        }
      }
      at.report.live(watched.map(({ progress }) => describeProgress(progress, seconds())))
      if (watched.every(({ progress }) => progress.state === 'ready')) {
        return watched.map(({ progress }) => progress)
      }
      if (performance.now() - started > at.timeoutMs) {
        const late = watched.find(({ progress }) => progress.state !== 'ready')!
        await askForReasons(at.state, late)
        throw new MachineFailed(
          late.machine.name,
          `not ready within ${Math.round(at.timeoutMs / 1000)} s, it is still at ${late.progress.stage}`,
          relevantLines(late.log.lines),
          'MACHINE_LATE',
        )
      }
      await new Promise((resolve) => setTimeout(resolve, lookIntervalMs))
    }
  } finally {
    for (const { log } of watched) log.close()
  }
}

/** What a machine is asked when it runs but does not become ready; development images answer. */
const question = [
  "systemctl --no-pager --plain --no-legend list-units --all 'kiln*' | grep -v ' active '",
  'journalctl -b --no-pager -p warning -o cat -n 20',
].join('; ')
const answerMs = 8_000

/** Has a machine that got as far as its units say on its console what is wrong with them. */
async function askForReasons(state: StateFolder, late: Watched): Promise<void> {
  if (!['units', 'ready'].includes(late.progress.stage) || !existsSync(late.log.path)) return
  const socket = connect(join(state.sockets, `${late.progress.name}.ttyS0`))
  socket.on('error', () => socket.destroy())
  socket.on('connect', () => socket.write(`\n${question}\n`))
  await new Promise((resolve) => setTimeout(resolve, answerMs))
  socket.destroy()
  late.log.poll()
}

type Watched = { machine: { bootMac: string }; log: SerialLog; progress: MachineProgress }

/** A failed machine's own report and last lines come a moment after the first sign of failure. */
async function settle(
  one: Watched,
  records: () => Promise<MachineRecord[]>,
  update: (one: Watched, next: MachineProgress) => void,
  seconds: () => number,
): Promise<void> {
  for (let look = 0; look < 10 && !one.progress.reported; look++) {
    await new Promise((resolve) => setTimeout(resolve, lookIntervalMs))
    one.log.poll()
    const record = (await records().catch(() => [])).find(({ mac }) => mac === one.machine.bootMac)
    if (record) update(one, onRecord(one.progress, record, seconds()))
  }
}

function failure(log: SerialLog, progress: MachineProgress): MachineFailed {
  const place = progress.place ? ` (${progress.place})` : ''
  const sentence = `stage ${progress.stage} failed: ${progress.failure ?? 'unknown'}${place}`
  return new MachineFailed(progress.name, sentence, relevantLines(log.lines))
}

/** The last lines worth reading: without firmware's redraws and repeated lines. */
export function relevantLines(lines: readonly string[]): string[] {
  return lines
    .filter((line, index) => line.trim() !== '' && line !== lines[index - 1] && !/^BdsDxe/.test(line))
    .slice(-consoleLinesShown)
}
