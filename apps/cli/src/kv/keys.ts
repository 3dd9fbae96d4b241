import { prefixRange } from '@kiln/etcd-api'
import type { KeyValue } from '@kiln/etcd-api/mvcc'
import { RangeRequest_SortOrder, RangeRequest_SortTarget } from '@kiln/etcd-api/rpc'
import { Fault } from '@kiln/service'
import { type Command, Option } from 'commander'
import { calls } from './calls.ts'
import { type KvPorts, readInput } from './ports.ts'
import { asJson, leaf, type Session } from './session.ts'
import { hex, idOf, safeText, wholeBigint } from './text.ts'

export type RangeFlags = { prefix?: boolean; fromKey?: boolean }

type GetFlags = RangeFlags & {
  limit?: string
  rev?: string
  order?: 'ASCEND' | 'DESCEND'
  sortBy: 'KEY' | 'VERSION' | 'CREATE' | 'MOD' | 'VALUE'
  consistency: 'l' | 's'
  keysOnly?: boolean
  countOnly?: boolean
  printValueOnly?: boolean
  minModRev?: string
  maxModRev?: string
  minCreateRev?: string
  maxCreateRev?: string
}

/** `kiln kv get|put|del`. */
export function addKeyCommands(kv: Command, ports: KvPorts): void {
  leaf(
    kv
      .command('get')
      .description('read a key, or the keys of a range')
      .argument('<key>')
      .argument('[range-end]', 'first key behind the range')
      .option('--prefix', 'all keys that begin with it')
      .option('--from-key', 'all keys from it on')
      .option('--limit <n>', 'at most so many')
      .option('--rev <n>', 'as of this revision')
      .addOption(new Option('--order <order>').choices(['ASCEND', 'DESCEND']))
      .addOption(
        new Option('--sort-by <what>').choices(['KEY', 'VERSION', 'CREATE', 'MOD', 'VALUE']).default('KEY'),
      )
      .addOption(
        new Option('--consistency <c>', 'linearizable, or as the member asked knows it')
          .choices(['l', 's'])
          .default('l'),
      )
      .option('--keys-only', 'without the values')
      .option('--count-only', 'only how many there are')
      .option('--print-value-only', 'only the values')
      .option('--min-mod-rev <n>')
      .option('--max-mod-rev <n>')
      .option('--min-create-rev <n>')
      .option('--max-create-rev <n>'),
    ports,
    get,
  )
  leaf(
    kv
      .command('put')
      .description('write a key; without a value, what standard input has')
      .argument('<key>')
      .argument('[value]')
      .option('--lease <id>', 'delete it when this lease ends')
      .option('--prev-kv', 'print what it was before')
      .option('--ignore-value', 'keep its value')
      .option('--ignore-lease', 'keep its lease'),
    ports,
    put,
  )
  leaf(
    kv
      .command('del')
      .description('delete a key, or the keys of a range')
      .argument('<key>')
      .argument('[range-end]', 'first key behind the range')
      .option('--prefix', 'all keys that begin with it')
      .option('--from-key', 'all keys from it on')
      .option('--prev-kv', 'print what was deleted'),
    ports,
    del,
  )
}

async function get(session: Session, args: string[], flags: GetFlags): Promise<void> {
  const { ports } = session
  const range = rangeOf(session, args, flags)
  const wanted = (text: string | undefined): bigint => (text === undefined ? 0n : wholeBigint(text))
  const order = flags.order ?? (flags.sortBy === 'KEY' ? undefined : 'ASCEND')
  const answer = await session.call(
    calls.range,
    {
      ...range,
      limit: wanted(flags.limit),
      revision: wanted(flags.rev),
      sortOrder: order === undefined ? RangeRequest_SortOrder.NONE : RangeRequest_SortOrder[order],
      sortTarget: RangeRequest_SortTarget[flags.sortBy],
      serializable: flags.consistency === 's',
      keysOnly: flags.keysOnly === true,
      countOnly: flags.countOnly === true,
      minModRevision: wanted(flags.minModRev),
      maxModRevision: wanted(flags.maxModRev),
      minCreateRevision: wanted(flags.minCreateRev),
      maxCreateRevision: wanted(flags.maxCreateRev),
    },
    `get ${args[0]}`,
  )
  const isMissing = range.rangeEnd.length === 0 && answer.count === 0n
  if (isMissing) ports.exit(3)
  if (asJson(session, calls.range, answer)) return
  if (isMissing) ports.note(`no key ${args[0]}`)
  else if (flags.countOnly) ports.print(answer.count.toString())
  else if (flags.printValueOnly) for (const pair of answer.kvs) line(session, pair.value)
  else if (session.format === 'table' && range.rangeEnd.length > 0) {
    ports.print(pairTable(session, answer.kvs))
    if (answer.more) ports.note(`${answer.kvs.length} of ${answer.count}`)
  } else printPairs(session, answer.kvs, flags.keysOnly === true)
}

async function put(
  session: Session,
  [key = '', value]: string[],
  flags: { lease?: string; prevKv?: boolean; ignoreValue?: boolean; ignoreLease?: boolean },
): Promise<void> {
  if (flags.ignoreValue && value !== undefined) throw new Fault('USAGE', 'a value, and --ignore-value')
  const given =
    flags.ignoreValue === true
      ? new Uint8Array()
      : value === undefined
        ? await readInput(session.ports)
        : session.bytes(value)
  const answer = await session.call(
    calls.put,
    {
      key: session.bytes(key),
      value: given,
      lease: flags.lease === undefined ? 0n : idOf(flags.lease, 'lease'),
      prevKv: flags.prevKv === true,
      ignoreValue: flags.ignoreValue === true,
      ignoreLease: flags.ignoreLease === true,
    },
    `put ${key}`,
  )
  if (asJson(session, calls.put, answer)) return
  session.ports.print('OK')
  if (answer.prevKv) printPairs(session, [answer.prevKv], false)
}

async function del(
  session: Session,
  args: string[],
  flags: RangeFlags & { prevKv?: boolean },
): Promise<void> {
  const request = { ...rangeOf(session, args, flags), prevKv: flags.prevKv === true }
  const answer = await session.call(calls.del, request, `delete ${args[0]}`)
  if (asJson(session, calls.del, answer)) return
  session.ports.print(answer.deleted.toString())
  printPairs(session, answer.prevKvs, false)
}

/** What `KEY [RANGE_END] [--prefix|--from-key]` selects; an empty end is the key alone. */
export function rangeOf(
  session: Pick<Session, 'bytes'>,
  [key = '', end]: string[],
  { prefix, fromKey }: RangeFlags,
): { key: Uint8Array; rangeEnd: Uint8Array } {
  if (Number(prefix === true) + Number(fromKey === true) + Number(end !== undefined) > 1)
    throw new Fault('USAGE', 'one of a range end, --prefix and --from-key')
  const first = session.bytes(key)
  if (prefix) return prefixRange(first)
  if (fromKey) return { key: first.length === 0 ? new Uint8Array(1) : first, rangeEnd: new Uint8Array(1) }
  return { key: first, rangeEnd: end === undefined ? new Uint8Array() : session.bytes(end) }
}

/** A key, and in the next line its value, as etcdctl prints them. */
export function printPairs(session: Session, pairs: readonly KeyValue[], keysOnly: boolean): void {
  for (const pair of pairs) {
    line(session, pair.key)
    if (!keysOnly) line(session, pair.value)
  }
}

/** The bytes as they are for other programs, safe for a terminal. */
export function line({ ports }: Session, bytes: Uint8Array): void {
  if (ports.live) ports.print(safeText(bytes))
  else ports.write(Buffer.concat([bytes, Buffer.from('\n')]))
}

function pairTable(session: Session, pairs: readonly KeyValue[]): string {
  const rows = pairs.map(({ key, value, modRevision, version, lease }) => [
    safeText(key),
    modRevision.toString(),
    version.toString(),
    lease === 0n ? '' : hex(lease),
    safeText(value),
  ])
  return session.table(['KEY', 'REVISION', 'VERSION', 'LEASE', 'VALUE'], rows)
}
