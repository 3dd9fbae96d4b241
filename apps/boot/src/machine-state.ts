import {
  type MachineAssignment,
  type MachineRecord,
  machineStages,
  type NextBoot,
  type StageReport,
} from '@kiln/schemas'

/** What happens to a machine, as kiln-boot sees it. `at` is ISO time. */
export type MachineEvent =
  | { kind: 'seen'; at: string; uuid?: string; serial?: string }
  /** It cannot be assigned or installed now; the message says why. */
  | { kind: 'held'; message: string }
  | { kind: 'assigned'; assignment: MachineAssignment }
  /** A script that installs was handed out. */
  | { kind: 'install-begun' }
  /** The config of an install was handed out: from here on the disk may be changed. */
  | { kind: 'config-served' }
  | { kind: 'reported'; at: string; report: StageReport }
  | { kind: 'reinstall-allowed'; keep?: string[] }
  | { kind: 'reinstall-withdrawn' }
  | { kind: 'enrolled'; at: string }
  | { kind: 'alarmed'; at: string; message: string }

/** Configs in a row that may be handed out without an install coming of it, before the machine is held. */
export const attemptsMax = 10

/** A machine nobody has seen before. */
export function discovered(at: { id: string; mac: string; uuid: string; now: string }): MachineRecord {
  return {
    id: at.id,
    mac: at.mac,
    uuid: at.uuid,
    state: 'discovered',
    firstSeenAt: at.now,
    lastSeenAt: at.now,
  }
}

/** An installed disk is never installed again unless the machine was set to it. */
export function decideBoot(record: MachineRecord): NextBoot {
  switch (record.state) {
    case 'discovered':
      return { kind: 'wait', message: record.message ?? 'not assigned yet' }
    case 'installed':
      if (record.reinstall !== true) return { kind: 'disk' }
      return attemptsLeft(record, { kind: 'install', reinstall: true })
    case 'assigned':
    case 'installing':
    case 'failed':
      return attemptsLeft(record, { kind: 'install', reinstall: record.reinstall === true })
  }
}

function attemptsLeft(record: MachineRecord, install: NextBoot): NextBoot {
  if ((record.attempts ?? 0) < attemptsMax) return install
  return {
    kind: 'wait',
    message: `${attemptsMax} installs in a row did not finish; allow a reinstall to go on`,
  }
}

/** Once the machine has been told to install itself again its disk may be anything: only the end of the install is a way out. */
export const mayWithdraw = ({ state }: MachineRecord): boolean => state !== 'installing' && state !== 'failed'

/** The next record; pure, total: an event that does not fit the state changes what it may and no more. */
export function stepMachine(record: MachineRecord, event: MachineEvent): MachineRecord {
  switch (event.kind) {
    case 'seen':
      return {
        ...record,
        lastSeenAt: event.at,
        uuid: event.uuid ?? record.uuid,
        serial: event.serial ?? record.serial,
      }
    case 'held':
      return record.state === 'installed' ? record : { ...record, message: event.message }
    case 'assigned': {
      const state = record.state === 'discovered' || record.state === 'failed' ? 'assigned' : record.state
      return {
        ...record,
        ...event.assignment,
        id: event.assignment.name,
        state,
        message: undefined,
        attempts: 0,
      }
    }
    case 'install-begun':
      return beginInstall(record)
    case 'config-served':
      return record.state === 'installing' || record.state === 'failed'
        ? { ...record, attempts: (record.attempts ?? 0) + 1 }
        : record
    case 'reported':
      return takeReport({ ...record, lastSeenAt: event.at }, event.report)
    case 'reinstall-allowed':
      if (record.state === 'discovered') return record
      return { ...record, reinstall: true, keep: event.keep?.length ? event.keep : undefined, attempts: 0 }
    case 'reinstall-withdrawn':
      return mayWithdraw(record) ? { ...record, reinstall: undefined, keep: undefined } : record
    case 'enrolled':
      // The disk is already the new one when a machine enrols: a reinstall has happened and is used up.
      return {
        ...record,
        enrolledAt: event.at,
        reinstall: undefined,
        stage: record.stage === 'ipxe' ? 'files' : record.stage,
        stageStatus: record.stage === 'ipxe' ? 'running' : record.stageStatus,
      }
    case 'alarmed':
      return { ...record, alarmAt: event.at, message: event.message }
  }
}

/** Asking again before anything was reported (iPXE starting over) is still the same install. */
function beginInstall(record: MachineRecord): MachineRecord {
  if (decideBoot(record).kind !== 'install') return record
  if (record.state === 'installing' && record.stage === 'ipxe') return record
  return {
    ...record,
    state: 'installing',
    installs: (record.installs ?? 0) + 1,
    stage: 'ipxe',
    stageStatus: 'done',
    ...withoutPlace,
  }
}

const withoutPlace = { message: undefined, path: undefined, line: undefined, column: undefined }

function takeReport(record: MachineRecord, report: StageReport): MachineRecord {
  const next: MachineRecord = {
    ...record,
    stage: report.stage,
    stageStatus: report.status,
    uptimeSeconds: report.uptimeSeconds,
    bootId: report.bootId,
    message: report.message,
    path: report.path,
    line: report.line,
    column: report.column,
    version: report.version ?? record.version,
    slot: report.slot ?? record.slot,
    generation: report.generation ?? record.generation,
  }
  switch (record.state) {
    case 'discovered':
    case 'installed':
      return next
    case 'assigned':
    case 'installing':
    case 'failed': {
      if (provesInstalled(report)) return afterInstall(next, record, report)
      return { ...next, state: report.status === 'failed' ? 'failed' : 'installing' }
    }
  }
}

/** The `installed` marker is written at the end of `files`; later stages only run from an installed disk. */
function provesInstalled(report: StageReport): boolean {
  const stage = machineStages.indexOf(report.stage)
  const files = machineStages.indexOf('files')
  return stage > files || (stage === files && report.status === 'done')
}

/**
 * A machine set to reinstall may also have started from its old disk; only the end of `files`, or a later stage of
 * the boot that installed, uses the permission up.
 */
function afterInstall(next: MachineRecord, before: MachineRecord, report: StageReport): MachineRecord {
  const sameBoot = before.stage !== 'ipxe' && before.bootId === report.bootId
  const used = report.stage === 'files' || sameBoot
  return {
    ...next,
    state: 'installed',
    installedAt: before.installedAt ?? next.lastSeenAt,
    attempts: 0,
    reinstall: used ? undefined : before.reinstall,
    keep: used ? undefined : before.keep,
  }
}
