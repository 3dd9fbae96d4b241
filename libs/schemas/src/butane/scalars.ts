import type { SourceNode } from './source.ts'

/** What a plain scalar says by itself, with the YAML 1.1 integers that file modes are written in. */
export type Resolved =
  | { type: 'null' }
  | { type: 'bool'; value: boolean }
  | { type: 'int'; value: number }
  | { type: 'float'; value: number }
  | { type: 'string'; value: string }

type Scalar = Extract<SourceNode, { kind: 'scalar' }>

const nulls = new Set(['', '~', 'null', 'Null', 'NULL'])
const trues = new Set(['true', 'True', 'TRUE'])
const falses = new Set(['false', 'False', 'FALSE'])
const floatPattern = /^[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?$/
const integerForms: [RegExp, number][] = [
  [/^([-+]?)0[xX]([0-9a-fA-F]+)$/, 16],
  [/^([-+]?)0[bB]([01]+)$/, 2],
  [/^([-+]?)0[oO]?([0-7]+)$/, 8],
  [/^([-+]?)(0|[1-9]\d*)$/, 10],
]

/** A quoted scalar, or one tagged as such, is a string; `0644` is octal and `1_000` a number. */
export function resolveScalar({ text, plain, tag }: Scalar): Resolved {
  const short = tag?.replace('tag:yaml.org,2002:', '!!')
  if (short === '!!binary') {
    return { type: 'string', value: Buffer.from(text, 'base64').toString('utf8') }
  }
  if (short === '!!str' || (!plain && short === undefined)) return { type: 'string', value: text }
  if (nulls.has(text)) return { type: 'null' }
  if (trues.has(text) || falses.has(text)) return { type: 'bool', value: trues.has(text) }
  const digits = text.replaceAll('_', '')
  for (const [pattern, base] of integerForms) {
    const match = pattern.exec(digits)
    if (!match) continue
    const value = Number.parseInt(match[2]!, base)
    if (Number.isSafeInteger(value)) return { type: 'int', value: match[1] === '-' ? -value : value }
  }
  if (floatPattern.test(digits)) return { type: 'float', value: Number(digits) }
  return { type: 'string', value: text }
}

const yes = new Set(['y', 'Y', 'yes', 'on'])
const no = new Set(['n', 'N', 'no', 'off'])

/** A truth value, also in YAML 1.1's words where the field is known to be one. */
export function asBool(resolved: Resolved): boolean | undefined {
  if (resolved.type === 'bool') return resolved.value
  if (resolved.type !== 'string') return undefined
  return yes.has(resolved.value) ? true : no.has(resolved.value) ? false : undefined
}
