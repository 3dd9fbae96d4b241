import { AlarmRequest_AlarmAction, AlarmType } from '@kiln/etcd-api/rpc'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import type { KvPorts } from './ports.ts'
import { asJson, leaf, type Session } from './session.ts'
import { hex, wholeBigint } from './text.ts'

const alarmNames: Record<number, string> = { [AlarmType.NOSPACE]: 'NOSPACE', [AlarmType.CORRUPT]: 'CORRUPT' }
/** A physical compaction is answered when the space is free. */
const physicalTimeoutMs = 600_000

/** `kiln kv alarm list|disarm`, and `compaction`. */
export function addUpkeepCommands(kv: Command, ports: KvPorts): void {
  const alarm = kv.command('alarm').description('what a member raised: no space, or corrupt data')
  leaf(alarm.command('list').description('all alarms'), ports, (session) =>
    alarms(session, AlarmRequest_AlarmAction.GET),
  )
  leaf(alarm.command('disarm').description('take all alarms back'), ports, (session) =>
    alarms(session, AlarmRequest_AlarmAction.DEACTIVATE),
  )
  leaf(
    kv
      .command('compaction')
      .description('give up the history before a revision')
      .argument('<revision>')
      .option('--physical', 'wait until its space is free'),
    ports,
    compact,
  )
}

async function alarms(session: Session, action: AlarmRequest_AlarmAction): Promise<void> {
  const doing = action === AlarmRequest_AlarmAction.GET ? 'list alarms' : 'disarm'
  const answer = await session.call(calls.alarm, { action }, doing)
  if (asJson(session, calls.alarm, answer)) return
  session.rows(
    ['MEMBER', 'ALARM'],
    answer.alarms.map(({ memberID, alarm }) => [hex(memberID), alarmNames[alarm] ?? 'NONE']),
  )
}

async function compact(
  session: Session,
  [text = '']: string[],
  flags: { physical?: boolean },
): Promise<void> {
  const request = { revision: wholeBigint(text), physical: flags.physical === true }
  const options = flags.physical ? { timeoutMs: physicalTimeoutMs } : {}
  const answer = await session.call(calls.compact, request, `compact to revision ${text}`, options)
  if (!asJson(session, calls.compact, answer)) session.ports.print(`compacted revision ${text}`)
}
