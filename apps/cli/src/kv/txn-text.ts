import { prefixRange } from '@kiln/etcd-api'
import {
  Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  DeleteRangeRequest,
  PutRequest,
  RangeRequest,
  type RequestOp,
} from '@kiln/etcd-api/rpc'
import { Fault } from '@kiln/service'
import { idOf, wholeBigint } from './text.ts'

export type TxnText = { compare: Compare[]; success: RequestOp[]; failure: RequestOp[] }

const results: Record<string, Compare_CompareResult> = {
  '=': Compare_CompareResult.EQUAL,
  '!=': Compare_CompareResult.NOT_EQUAL,
  '<': Compare_CompareResult.LESS,
  '>': Compare_CompareResult.GREATER,
}

/**
 * A transaction as etcdctl reads it: lines of comparisons, an empty line, operations if all of them hold, an empty line, operations if not.
 * `mod("key") > "0"` with create, mod, ver, val and lease; `put KEY VALUE [--lease ID]`, `get KEY [END] [--prefix]`, `del KEY [END]
 * [--prefix]`. Quotes work as in Go: `"\x00\n"`.
 */
export function parseTxn(text: string): TxnText {
  const parts: string[][] = [[]]
  for (const raw of text.split('\n')) {
    const line = raw.trim()
    if (line !== '') parts.at(-1)!.push(line)
    else if (parts.length < 3) parts.push([])
  }
  const [compares = [], success = [], failure = []] = parts
  return {
    compare: compares.map(comparison),
    success: success.map(operation),
    failure: failure.map(operation),
  }
}

function comparison(line: string): Compare {
  const match =
    /^(c|create|m|mod|ver|version|val|value|lease)\s*\(\s*("(?:[^"\\]|\\.)*"|'[^']*')\s*\)\s*(=|!=|<|>)\s*(\S.*)$/.exec(
      line,
    )
  if (match === null) throw refused(line, 'mod("key") > "0"')
  const [, target = '', quotedKey = '', operator = '', operand = ''] = match
  const words = wordsOf(operand)
  const value = words[0]
  if (words.length !== 1 || value === undefined) throw refused(line, 'mod("key") > "0"')
  const base = { key: wordsOf(quotedKey)[0]!, result: results[operator]! }
  const number = (): bigint => wholeBigint(value.toString())
  switch (target) {
    case 'c':
    case 'create':
      return Compare.fromPartial({
        ...base,
        target: Compare_CompareTarget.CREATE,
        targetUnion: { $case: 'createRevision', value: number() },
      })
    case 'm':
    case 'mod':
      return Compare.fromPartial({
        ...base,
        target: Compare_CompareTarget.MOD,
        targetUnion: { $case: 'modRevision', value: number() },
      })
    case 'ver':
    case 'version':
      return Compare.fromPartial({
        ...base,
        target: Compare_CompareTarget.VERSION,
        targetUnion: { $case: 'version', value: number() },
      })
    case 'lease':
      return Compare.fromPartial({
        ...base,
        target: Compare_CompareTarget.LEASE,
        targetUnion: { $case: 'lease', value: idOf(value.toString(), 'lease') },
      })
    default:
      return Compare.fromPartial({
        ...base,
        target: Compare_CompareTarget.VALUE,
        targetUnion: { $case: 'value', value },
      })
  }
}

function operation(line: string): RequestOp {
  const words = wordsOf(line)
  const flags = new Set(words.map(String).filter((word) => word.startsWith('--')))
  const known = (...names: string[]): boolean => [...flags].every((flag) => names.includes(flag))
  const lease = words.findIndex((word) => word.toString() === '--lease')
  const leaseId = lease < 0 ? undefined : words[lease + 1]
  const [verb, ...args] = words.filter(
    (word, at) => !word.toString().startsWith('--') && (lease < 0 || at !== lease + 1),
  )
  const [key, second] = args
  if (key === undefined) throw refused(line, 'put KEY VALUE')
  const range = (): { key: Uint8Array; rangeEnd?: Uint8Array } =>
    flags.has('--prefix') ? prefixRange(key) : second === undefined ? { key } : { key, rangeEnd: second }
  switch (verb?.toString()) {
    case 'put': {
      if (args.length !== 2 || !known('--lease', '--prev-kv'))
        throw refused(line, 'put KEY VALUE [--lease ID]')
      const value = PutRequest.fromPartial({
        key,
        value: second!,
        prevKv: flags.has('--prev-kv'),
        ...(leaseId ? { lease: idOf(leaseId.toString(), 'lease') } : {}),
      })
      return { request: { $case: 'requestPut', value } }
    }
    case 'get': {
      if (args.length > 2 || !known('--prefix', '--keys-only', '--count-only'))
        throw refused(line, 'get KEY [END] [--prefix]')
      const value = RangeRequest.fromPartial({
        ...range(),
        keysOnly: flags.has('--keys-only'),
        countOnly: flags.has('--count-only'),
      })
      return { request: { $case: 'requestRange', value } }
    }
    case 'del': {
      if (args.length > 2 || !known('--prefix', '--prev-kv')) throw refused(line, 'del KEY [END] [--prefix]')
      const value = DeleteRangeRequest.fromPartial({ ...range(), prevKv: flags.has('--prev-kv') })
      return { request: { $case: 'requestDeleteRange', value } }
    }
    default:
      throw refused(line, 'put, get or del')
  }
}

/** The words of a line; a word in double quotes has Go's escapes, one in single quotes none. */
function wordsOf(line: string): Buffer[] {
  const words: Buffer[] = []
  let at = 0
  while (at < line.length) {
    const rest = line.slice(at)
    const match = /^\s+/.exec(rest) ?? /^"(?:[^"\\]|\\.)*"(?=\s|$)|^'[^']*'(?=\s|$)|^[^\s"']+/.exec(rest)
    if (match === null) throw refused(line, 'words, with quotes around what has spaces')
    const word = match[0]
    at += word.length
    if (/^\s/.test(word)) continue
    if (word.startsWith('"')) words.push(unquoted(word.slice(1, -1)))
    else words.push(Buffer.from(word.startsWith("'") ? word.slice(1, -1) : word))
  }
  return words
}

const escapes: Record<string, string> = { n: '\n', t: '\t', r: '\r', '0': '\0' }

function unquoted(text: string): Buffer {
  const pieces: Buffer[] = []
  for (const [piece] of text.matchAll(/\\x[0-9a-fA-F]{2}|\\.|[^\\]+/gs)) {
    if (piece.startsWith('\\x')) pieces.push(Buffer.from([Number.parseInt(piece.slice(2), 16)]))
    else if (piece.startsWith('\\')) pieces.push(Buffer.from(escapes[piece[1]!] ?? piece[1]!))
    else pieces.push(Buffer.from(piece))
  }
  return Buffer.concat(pieces)
}

function refused(line: string, wanted: string): Fault {
  return new Fault('USAGE', `transaction: \`${line}\` is not ${wanted}`)
}
