import type { SourceNode } from './source.ts'

/** What a scalar says by itself, with the YAML 1.1 integers that file modes are written in. */
export type Resolved =
  | { type: 'null' }
  | { type: 'bool'; value: boolean }
  /** Up to the greatest unsigned integer of 64 bits. */
  | { type: 'int'; value: bigint }
  | { type: 'float'; value: number }
  | { type: 'string'; value: string }
  | { type: 'binary'; value: Uint8Array }
  /** A tag says that it is what it is not. */
  | { type: 'invalid'; message: string }

type Scalar = Extract<SourceNode, { kind: 'scalar' }>

const nulls = new Set(['', '~', 'null', 'Null', 'NULL'])
const trues = new Set(['true', 'True', 'TRUE'])
const falses = new Set(['false', 'False', 'FALSE'])
const infinities = /^([-+]?)\.(?:inf|Inf|INF)$/
const notNumbers = new Set(['.nan', '.NaN', '.NAN'])
const floatPattern = /^[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?$/
const integerForms: [RegExp, string][] = [
  [/^([-+]?)0[xX]([0-9a-fA-F]+)$/, '0x'],
  [/^([-+]?)0[bB]([01]+)$/, '0b'],
  [/^([-+]?)0[oO]?([0-7]+)$/, '0o'],
  [/^([-+]?)(0|[1-9]\d*)$/, ''],
]
const int64Min = -(2n ** 63n)
export const int64Max = 2n ** 63n - 1n
const uint64Max = 2n ** 64n - 1n
const base64Pattern = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** Tags that say what a scalar is; with any other it is a string. */
const tagged: Record<string, readonly Resolved['type'][]> = {
  '!!bool': ['bool'],
  '!!int': ['int'],
  '!!float': ['float', 'int'],
  '!!null': ['null'],
  '!!timestamp': ['string'],
}

/** A quoted scalar, or one tagged as such, is a string; `0644` is octal and `1_000` a number. */
export function resolveScalar({ text, plain, tag }: Scalar): Resolved {
  const short = tag === '!' ? undefined : tag?.replace('tag:yaml.org,2002:', '!!')
  if (short === '!!binary') return decodeBinary(text)
  if (short === undefined) return plain ? resolvePlain(text) : { type: 'string', value: text }
  const wanted = Object.hasOwn(tagged, short) ? tagged[short] : undefined
  if (!wanted) return { type: 'string', value: text }
  const resolved = resolvePlain(text)
  if (wanted.includes(resolved.type)) return resolved
  return { type: 'invalid', message: `cannot decode !!${tagOf(resolved)} \`${text}\` as a ${short}` }
}

/** The name of a type in YAML. */
export const tagOf = ({ type }: Resolved): string => (type === 'string' || type === 'invalid' ? 'str' : type)

function resolvePlain(text: string): Resolved {
  if (nulls.has(text)) return { type: 'null' }
  if (trues.has(text) || falses.has(text)) return { type: 'bool', value: trues.has(text) }
  const infinity = infinities.exec(text)
  if (infinity) return { type: 'float', value: infinity[1] === '-' ? -Infinity : Infinity }
  if (notNumbers.has(text)) return { type: 'float', value: Number.NaN }
  if (!/^[-+.\d]/.test(text)) return { type: 'string', value: text }
  const digits = text.startsWith('.') ? text : text.replaceAll('_', '')
  for (const [pattern, prefix] of integerForms) {
    const match = pattern.exec(digits)
    if (!match) continue
    const size = BigInt(`${prefix}${match[2]}`)
    const value = match[1] === '-' ? -size : size
    // Only without a sign may an integer need all of its 64 bits.
    if (value >= int64Min && value <= (match[1] === '' ? uint64Max : int64Max)) return { type: 'int', value }
  }
  if (floatPattern.test(digits)) return { type: 'float', value: Number(digits) }
  return { type: 'string', value: text }
}

function decodeBinary(text: string): Resolved {
  const encoded = text.replaceAll(/[\r\n]/g, '')
  return base64Pattern.test(encoded)
    ? { type: 'binary', value: Buffer.from(encoded, 'base64') }
    : { type: 'invalid', message: '!!binary value contains invalid base64 data' }
}

const yes = new Set(['y', 'Y', 'yes', 'Yes', 'YES', 'on', 'On', 'ON'])
const no = new Set(['n', 'N', 'no', 'No', 'NO', 'off', 'Off', 'OFF'])

/** A truth value, also in YAML 1.1's words where the field is known to be one. */
export function asBool(resolved: Resolved): boolean | undefined {
  if (resolved.type === 'bool') return resolved.value
  if (resolved.type !== 'string') return undefined
  return yes.has(resolved.value) ? true : no.has(resolved.value) ? false : undefined
}

/** An integer of 64 bits with a sign; a fraction is cut off. A bigint where a number would not be exact. */
export function asInt(resolved: Resolved): number | bigint | undefined {
  if (resolved.type === 'float') {
    const { value } = resolved
    // As the reference's processor has it, what is too small, and the one that is too great by one, come out least.
    if (Number.isNaN(value) || value > 2 ** 63) return undefined
    return Math.abs(value) < 2 ** 63 ? exact(BigInt(Math.trunc(value))) : int64Min
  }
  return resolved.type === 'int' && resolved.value <= int64Max ? exact(resolved.value) : undefined
}

const exact = (value: bigint): number | bigint => {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}
