import { prefixRange } from '@kiln/etcd-api'
import { Change_Kind } from '@kiln/etcd-api/history'
import type { KeyValue } from '@kiln/etcd-api/mvcc'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import type { KvPorts } from './ports.ts'
import { asJson, leaf, type Session } from './session.ts'
import { safeText, wholeBigint } from './text.ts'

/** A restore may touch very many keys. */
const restoreTimeoutMs = 120_000

/** `kiln kv history`: what the store knows beyond etcd's API. */
export function addHistoryCommands(kv: Command, ports: KvPorts): void {
  const history = kv
    .command('history')
    .description('what keys were: revisions, deleted keys, differences, restoring (not with etcd)')
  leaf(
    history
      .command('list')
      .description('the revisions of a key, newest first')
      .argument('<key>')
      .option('--limit <n>', 'at most so many')
      .option('--before <revision>', 'only older ones')
      .option('--keys-only', 'without the values'),
    ports,
    list,
  )
  leaf(
    history
      .command('deleted')
      .description('deleted keys that begin with a prefix')
      .argument('<prefix>')
      .option('--limit <n>', 'at most so many'),
    ports,
    deleted,
  )
  leaf(
    history
      .command('diff')
      .description('what is different below a prefix between two revisions')
      .argument('<prefix>')
      .argument('<from>', 'revision')
      .argument('[to]', 'revision (default: the newest)')
      .option('--limit <n>', 'at most so many')
      .option('--keys-only', 'without the values'),
    ports,
    diff,
  )
  leaf(
    history
      .command('restore')
      .description(
        'make a prefix what it was as of a revision, in one step; restored keys belong to no lease',
      )
      .argument('<prefix>')
      .argument('<revision>')
      .option('--max-changes <n>', 'change nothing if it would be more (at most and by default 1,000,000)'),
    ports,
    restore,
  )
}

type PageFlags = { limit?: string; before?: string; keysOnly?: boolean }

const numberOf = (text: string | undefined): bigint => (text === undefined ? 0n : wholeBigint(text))
const told = (pair: KeyValue | undefined, show: (pair: KeyValue) => string): string =>
  pair ? show(pair) : ''

async function list(session: Session, [key = '']: string[], flags: PageFlags): Promise<void> {
  const request = {
    key: session.bytes(key),
    limit: numberOf(flags.limit),
    before: numberOf(flags.before),
    keysOnly: flags.keysOnly === true,
  }
  const answer = await session.call(calls.revisions, request, `history of ${key}`)
  if (answer.changes.length === 0 && flags.before === undefined) session.ports.exit(3)
  if (asJson(session, calls.revisions, answer)) return
  session.rows(
    ['REVISION', 'CHANGE', 'VERSION', 'VALUE'],
    answer.changes.map(({ kind, kv }) => [
      told(kv, ({ modRevision }) => String(modRevision)),
      kind === Change_Kind.DELETE ? 'DELETE' : 'PUT',
      kind === Change_Kind.DELETE ? '' : told(kv, ({ version }) => String(version)),
      told(kv, ({ value }) => safeText(value)),
    ]),
  )
  const oldest = answer.changes.at(-1)?.kv?.modRevision
  if (answer.more) session.ports.note(`there are older ones: --before ${oldest}`)
  else if (answer.compactRevision > 0n)
    session.ports.note(`what was before revision ${answer.compactRevision} is compacted`)
}

async function deleted(session: Session, [prefix = '']: string[], flags: PageFlags): Promise<void> {
  const request = { ...prefixRange(session.bytes(prefix)), limit: numberOf(flags.limit) }
  const answer = await session.call(calls.deletedKeys, request, `deleted keys of ${prefix}`)
  if (asJson(session, calls.deletedKeys, answer)) return
  session.rows(
    ['KEY', 'DELETED', 'LAST REVISION'],
    answer.keys.map(({ key, deletedRevision, last }) => [
      safeText(key),
      String(deletedRevision),
      last ? String(last.modRevision) : 'compacted',
    ]),
  )
  if (answer.more) session.ports.note('there are more: --limit, or a longer prefix')
}

async function diff(
  session: Session,
  [prefix = '', from = '', to]: string[],
  flags: PageFlags,
): Promise<void> {
  const request = {
    ...prefixRange(session.bytes(prefix)),
    fromRevision: wholeBigint(from),
    toRevision: numberOf(to),
    limit: numberOf(flags.limit),
    keysOnly: flags.keysOnly === true,
  }
  const answer = await session.call(calls.diff, request, `differences below ${prefix}`)
  if (asJson(session, calls.diff, answer)) return
  session.rows(
    ['KEY', 'CHANGE', 'BEFORE', 'AFTER'],
    answer.differences.map(({ key, before, after }) => [
      safeText(key),
      before === undefined ? 'added' : after === undefined ? 'deleted' : 'changed',
      told(before, ({ value }) => safeText(value)),
      told(after, ({ value }) => safeText(value)),
    ]),
  )
  if (answer.more) session.ports.note('there are more: --limit, or a longer prefix')
}

async function restore(
  session: Session,
  [prefix = '', revision = '']: string[],
  flags: { maxChanges?: string },
): Promise<void> {
  const request = {
    ...prefixRange(session.bytes(prefix)),
    revision: wholeBigint(revision),
    changesMax: numberOf(flags.maxChanges),
  }
  const doing = `restore ${prefix} as of revision ${revision}`
  const answer = await session.call(calls.restore, request, doing, { timeoutMs: restoreTimeoutMs })
  if (asJson(session, calls.restore, answer)) return
  session.ports.print(
    `${answer.put} keys have their value of revision ${revision} again, ${answer.deleted} are deleted; revision ${answer.header?.revision}`,
  )
}
