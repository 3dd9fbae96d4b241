import { Fault } from '@kiln/service'

/** How an option is written: alone, with a value, or with a value any number of times. */
export type OptionKinds = Readonly<Record<string, 'flag' | 'value' | 'list'>>
export type ParsedLine = {
  flags: Set<string>
  values: Map<string, string>
  lists: Map<string, string[]>
  rest: string[]
}

/**
 * The command line as runc's users write it: `--name value`, `--name=value`, one dash or two, one-letter names, options before
 * the first argument only, or with `anywhere` also after it; `--` ends them. `short` maps letters to names.
 */
export function parseLine(
  args: readonly string[],
  kinds: OptionKinds,
  short: Readonly<Record<string, string>>,
  { anywhere = false } = {},
): ParsedLine {
  const parsed: ParsedLine = { flags: new Set(), values: new Map(), lists: new Map(), rest: [] }
  let at = 0
  for (; at < args.length; at++) {
    const argument = args[at]!
    if (argument === '--') {
      at++
      break
    }
    if (!argument.startsWith('-') || argument === '-') {
      if (!anywhere) break
      parsed.rest.push(argument)
      continue
    }
    const [written = '', ...after] = argument.replace(/^--?/, '').split('=')
    const name = short[written] ?? written
    const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined
    if (!kind) throw new Fault('USAGE', `unknown option ${argument}`)
    const inline = after.length > 0 ? after.join('=') : undefined
    if (kind === 'flag') {
      if (inline !== 'false') parsed.flags.add(name)
      continue
    }
    const value = inline ?? args[++at]
    if (value === undefined) throw new Fault('USAGE', `${argument} needs a value`)
    if (kind === 'value') parsed.values.set(name, value)
    else parsed.lists.set(name, [...(parsed.lists.get(name) ?? []), value])
  }
  parsed.rest.push(...args.slice(at))
  return parsed
}

/** A whole number of an option. */
export function numberOf(line: ParsedLine, name: string): number | undefined {
  const text = line.values.get(name)
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() === '' || !Number.isSafeInteger(value))
    throw new Fault('USAGE', `--${name}: ${text} is not a whole number`)
  return value
}

/** Bytes, with the units of docker and runc: 64m, 1g. */
export function bytesOf(line: ParsedLine, name: string): number | undefined {
  const text = line.values.get(name)
  if (text === undefined) return undefined
  const match = /^(-?\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?$/i.exec(text)
  if (!match) throw new Fault('USAGE', `--${name}: ${text} is not a number of bytes`)
  return Math.trunc(Number(match[1]) * 1024 ** ' kmgtp'.indexOf(match[2]!.toLowerCase() || ' '))
}
