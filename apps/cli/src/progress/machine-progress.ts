import type { MachineRecord } from '@kiln/schemas'
import { findBadness, impliedStage, type MachineStage, machineStages, parseMark } from '@kiln/vm'

/** How far one machine is, put together from its console and from what it told the boot server. */
export type MachineProgress = {
  name: string
  /** Seconds of the observer's clock at which each stage began. */
  startedAt: Partial<Record<MachineStage, number>>
  stage: MachineStage
  state: 'running' | 'ready' | 'failed'
  /** Cause in one sentence, once failed. */
  failure?: string
  /** Where in a config the cause is. */
  place?: string
  /** The machine itself told the cause. */
  reported?: boolean
}

export function newProgress(name: string, atSeconds: number): MachineProgress {
  return { name, startedAt: { firmware: atSeconds }, stage: 'firmware', state: 'running' }
}

/** Kinds of console badness that end an installation; others may pass by themselves. */
const fatal = new Set(['kernel panic', 'emergency shell', 'agent failure'])

/** The reason that init and agent print last: `kiln: disks failed: no disk; rebooting in 30 s`. */
const reasonPattern = /^kiln(?:-[a-z]+)?: \S+ failed: (.*?)(?:; rebooting in \d+ s)?$/

/** The progress after one console line. A failure's reason follows it, so lines after a failure still count. */
export function onConsoleLine(progress: MachineProgress, line: string, atSeconds: number): MachineProgress {
  if (progress.state === 'failed') {
    const reason = reasonPattern.exec(line)?.[1]
    return reason && !progress.reported ? { ...progress, failure: reason } : progress
  }
  const mark = parseMark(line)
  const stage = mark ? knownStage(mark.stage) : impliedStage(line)
  if (mark?.fields['status'] === 'failed') {
    return failed(progress, stage ?? progress.stage, mark.fields['message'] ?? `${mark.stage} failed`)
  }
  // Only `ready` has no status: it is said once, when it is done.
  const done = mark !== undefined && (mark.fields['status'] ?? 'done') === 'done'
  if (stage) return reached(progress, stage, done, atSeconds)
  const [bad] = findBadness([line])
  if (bad && fatal.has(bad.kind)) return failed(progress, progress.stage, `${bad.kind}: ${bad.line.trim()}`)
  return progress
}

/** The progress after a look at the boot server's record of the machine. */
export function onRecord(
  progress: MachineProgress,
  record: MachineRecord,
  atSeconds: number,
): MachineProgress {
  if (record.stageStatus === 'failed') {
    const failure = failed(progress, record.stage ?? progress.stage, record.message ?? 'failed')
    return { ...failure, reported: true, place: placeOf(record) }
  }
  if (progress.state === 'failed' || record.stage === undefined) return progress
  return reached(progress, record.stage, record.stageStatus === 'done', atSeconds)
}

/** Where in a config a machine says its problem is. */
export function placeOf(record: Pick<MachineRecord, 'path' | 'line' | 'column'>): string | undefined {
  const position = record.line === undefined ? undefined : `line ${record.line}, column ${record.column ?? 1}`
  const parts = [record.path, position].filter((part) => part !== undefined)
  return parts.length > 0 ? parts.join(', ') : undefined
}

function knownStage(name: string): MachineStage | undefined {
  return machineStages.find((stage) => stage === name)
}

/** A stage never goes back: reports may arrive out of order, and a later boot has a progress of its own. */
function reached(
  progress: MachineProgress,
  stage: MachineStage,
  done: boolean,
  atSeconds: number,
): MachineProgress {
  if (machineStages.indexOf(stage) < machineStages.indexOf(progress.stage)) return progress
  const startedAt = { ...progress.startedAt, [stage]: progress.startedAt[stage] ?? atSeconds }
  const state = stage === 'ready' && done ? 'ready' : progress.state
  return { ...progress, stage, startedAt, state }
}

function failed(progress: MachineProgress, stage: MachineStage, failure: string): MachineProgress {
  return { ...progress, stage, state: 'failed', failure }
}

/** One line about a machine: stages passed with the seconds each took, and the current one. */
export function describeProgress(progress: MachineProgress, nowSeconds: number): string {
  const begun = machineStages.filter((stage) => progress.startedAt[stage] !== undefined)
  const total = Math.round(nowSeconds - (progress.startedAt.firmware ?? nowSeconds))
  const parts = begun.map((stage, index) => {
    const start = progress.startedAt[stage] ?? nowSeconds
    const next = begun[index + 1]
    if (stage === 'ready') return stage
    if (next === undefined) return progress.state === 'failed' ? `${stage} FAILED` : `${stage}...`
    return `${stage} ${Math.round((progress.startedAt[next] ?? start) - start)}`
  })
  return `${progress.name.padEnd(8)} ${total.toString().padStart(4)} s  ${parts.join('  ')}`
}
