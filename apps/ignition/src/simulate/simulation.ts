import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { GptTable } from '@kiln/gpt'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { ConfigInvalid } from '../config-invalid.ts'
import { runDisks } from '../disks-stage.ts'
import { ticketPath } from '../enrol.ts'
import { describeFailure } from '../failure.ts'
import type { Fetched } from '../fetch-stage.ts'
import { fetchConfig } from '../fetch-stage.ts'
import { fileDisk } from '../file-disk.ts'
import { runFiles } from '../files-stage.ts'
import { runMount } from '../mount-stage.ts'
import { installs } from '../options.ts'
import type { Reporter } from '../reporter.ts'
import type { Run } from '../run.ts'
import { type RootChange, rootChanges } from './root-changes.ts'
import { type SimulatedDisk, simulatedDisks, tableLines } from './simulated-disks.ts'

export type SimulatedTable = { device: string; before: string[]; after: string[] }

/** What applying a config would do. */
export type SimulationReport = {
  outcome: 'applies' | 'invalid' | 'fails'
  failure?: { stage: string; message: string; path?: string | undefined }
  disks: SimulatedTable[]
  /** What the stages said, in order: partitions, file systems, mounts, users. */
  steps: string[]
  files: RootChange[]
  units: { enabled: string[]; disabled: string[]; masked: string[] }
  /** Where something came from, without data URLs. */
  fetched: string[]
  /** What this cannot show. */
  notes: string[]
}

export type SimulationPlace = {
  disks: SimulatedDisk[]
  folder: string
  /** The root before; undefined when there is none to look at. */
  before: string | undefined
  after: string
  /** Folders that hold every path that may have changed. */
  changed: string[]
}

/** Runs the engine on copies, and says what it changed. */
export async function simulate(real: Run, place: SimulationPlace): Promise<SimulationReport> {
  const report: SimulationReport = {
    outcome: 'applies',
    disks: [],
    steps: [],
    files: [],
    units: { enabled: [], disabled: [], masked: [] },
    fetched: [],
    notes: [],
  }
  let run: Run = {
    ...real,
    hasProgram: () => true,
    reporter: recorder(report.steps),
    warn: (line) => void (report.notes.includes(line) || report.notes.push(line)),
    fetcher: {
      ...real.fetcher,
      http: (call) => {
        report.fetched.push(call.url.replace(/\?.*/, ''))
        return real.fetcher.http(call)
      },
    },
  }
  let stage = 'fetch'
  try {
    const fetched = await fetchConfig(run)
    const config = withoutTicket(withoutDeviceMapper(fetched.config, report.notes), report.notes)
    const simulated = { ...fetched, config }
    nameDisks(place.disks, config, installs(run.options) ? run.kernel.disk : undefined)
    run = { ...run, ...simulatedDisks(place.disks, place.folder, real.command, run.options.root) }
    stage = 'disks'
    const { install } = await runDisks(simulated, run)
    if (install)
      report.notes.push('the image goes to USR-A and its boot files to EFI: neither is written here')
    stage = 'mount'
    const mounted = await runMount(simulated, install, run)
    stage = 'files'
    await runFiles(simulated, { mounted, volumes: [] }, run)
    report.units = unitsOf(fetched)
  } catch (error) {
    const { failure } = describeFailure(stage, error, { installing: false })
    const { message, path } = failure
    report.outcome = error instanceof ConfigInvalid ? 'invalid' : 'fails'
    report.failure = { stage, message, path }
    if (error instanceof ConfigInvalid) report.steps.push(...error.lines())
  }
  nameDevices(report, place)
  if (stage !== 'fetch') {
    report.disks = await Promise.all(place.disks.map(tableChange))
    const before = place.before ?? join(place.folder, 'empty')
    mkdirSync(before, { recursive: true })
    report.files = await rootChanges({ before, after: place.after, changed: place.changed }, real.command)
  }
  return report
}

/** A disk that was given without its device is the only one the config names. */
function nameDisks(disks: SimulatedDisk[], { storage }: IgnitionConfig, system: string | undefined): void {
  const named = [...(storage?.disks ?? []).map(({ device }) => device), ...(system ? [system] : [])]
  const partitions = (storage?.filesystems ?? []).map(({ device }) => device.replace(/p?\d+$/, ''))
  const candidates = new Set(named.length > 0 ? named : partitions.filter((each) => !each.includes('/by-')))
  for (const disk of disks) candidates.delete(disk.device)
  for (const disk of disks) {
    if (disk.device !== '') continue
    const [only = '/dev/vda', ...more] = candidates
    if (more.length > 0) {
      throw new Fault('DEVICE_MISSING', `the config names ${[...candidates].join(' and ')}`, {
        remedy: 'say which one the image is: --disk DEVICE=IMAGE',
      })
    }
    disk.device = only
    candidates.delete(only)
  }
}

/** Partitions by the names they would have, not by the files that stand for them here. */
function nameDevices(report: SimulationReport, { disks, folder }: SimulationPlace): void {
  const named = (text: string): string => {
    let name = text
    for (const [index, { device, copy }] of disks.entries()) {
      const partition = `${device}${/\d$/.test(device) ? 'p' : ''}`
      name = name.replaceAll(`${folder}/disk${index}-partition`, partition).replaceAll(copy, device)
    }
    return name
  }
  report.steps = report.steps.map(named)
  report.notes = report.notes.map(named)
  if (report.failure) report.failure.message = named(report.failure.message)
}

function recorder(steps: string[]): Reporter {
  return {
    say: (line) => void steps.push(line),
    running: () => undefined,
    done: async () => undefined,
    failed: async () => undefined,
  }
}

async function tableChange({ device, copy, before }: SimulatedDisk): Promise<SimulatedTable> {
  const { reading } = await fileDisk(copy, 0).find()
  const after: GptTable | undefined = reading.kind === 'table' ? reading.table : undefined
  return { device, before: tableLines(before), after: tableLines(after) }
}

/** RAID, LUKS and what lies on them need a kernel with device mapper, kernel arguments a boot loader: noted, not run. */
function withoutDeviceMapper(config: IgnitionConfig, notes: string[]): IgnitionConfig {
  const { storage, kernelArguments } = config
  for (const { name } of storage?.raid ?? []) notes.push(`array ${name} needs md: it is not simulated`)
  for (const { name } of storage?.luks ?? []) {
    notes.push(`LUKS volume ${name} needs device mapper: it is not simulated`)
  }
  if (kernelArguments)
    notes.push('kernel arguments change entries of the boot loader: they are not simulated')
  if (!storage) return config
  const filesystems = (storage.filesystems ?? []).filter(({ device }) => {
    const above = /^\/dev\/(md|mapper|disk\/by-id\/dm-)/.test(device)
    if (above) notes.push(`the file system on ${device} is not simulated`)
    return !above
  })
  return { ...config, storage: { ...storage, raid: [], luks: [], filesystems } }
}

/** A ticket is good for one certificate: the machine's, not one of a simulation. */
function withoutTicket(config: IgnitionConfig, notes: string[]): IgnitionConfig {
  const { storage } = config
  const files = storage?.files?.filter(({ path }) => path !== ticketPath)
  if (!storage || !files || files.length === storage.files?.length) return config
  notes.push('the machine would get its certificate from kiln-boot: that is not simulated')
  return { ...config, storage: { ...storage, files } }
}

function unitsOf({ config }: Fetched): SimulationReport['units'] {
  const units = config.systemd?.units ?? []
  const named = (right: (unit: (typeof units)[number]) => boolean): string[] =>
    units.filter(right).map(({ name }) => name)
  return {
    enabled: named(({ enabled }) => enabled === true),
    disabled: named(({ enabled }) => enabled === false),
    masked: named(({ mask }) => mask === true),
  }
}

/** The report for people. */
export function simulationText(report: SimulationReport): string {
  const lines: string[] = []
  const section = (title: string, entries: string[]): void => {
    if (entries.length > 0) lines.push(title, ...entries.map((entry) => `  ${entry}`), '')
  }
  for (const { device, before, after } of report.disks) {
    if (before.join() === after.join()) section(`${device}: the partition table stays`, after)
    else {
      section(`${device}: before`, before)
      section(`${device}: after`, after)
    }
  }
  section('Steps', report.steps)
  for (const { path, change, kind, mode, diff } of report.files) {
    const indented =
      diff
        ?.trimEnd()
        .split('\n')
        .map((line) => `  ${line}`) ?? []
    lines.push(`${change} ${kind} ${path} (${mode})`, ...indented)
  }
  if (report.files.length > 0) lines.push('')
  section('Units enabled', report.units.enabled)
  section('Units disabled', report.units.disabled)
  section('Units masked', report.units.masked)
  section('Fetched', report.fetched)
  section('Not shown', report.notes)
  const { failure } = report
  if (!failure) lines.push('It would apply.')
  else {
    const where = failure.path === undefined ? '' : `${failure.path}: `
    const what =
      report.outcome === 'invalid' ? 'The config is invalid' : `It would fail at stage ${failure.stage}`
    lines.push(`${what}: ${where}${failure.message}`)
  }
  return `${lines.join('\n')}\n`
}
