import { goDurationMs } from '@kiln/service'
import { parse as parseYaml } from 'yaml'
import { type Flag, flagName, flags } from './flags.ts'

export type RawSettings = {
  values: Map<string, string>
  /** Names given by somebody, in contrast to defaults. */
  given: Set<string>
  warnings: string[]
  problems: string[]
}

export type SettingsInput = {
  argv: string[]
  env: Record<string, string | undefined>
  readFile: (path: string) => string
}

/** Where the YAML file has the certificates of a side, and which flags they are (etcd.conf.yml.sample). */
const securitySections: Record<string, Record<string, string>> = {
  'client-transport-security': {
    'cert-file': 'cert-file',
    'key-file': 'key-file',
    'client-cert-auth': 'client-cert-auth',
    'trusted-ca-file': 'trusted-ca-file',
    'auto-tls': 'auto-tls',
    'client-crl-file': 'client-crl-file',
    'crl-file': 'client-crl-file',
    'client-cert-allowed-hostname': 'client-cert-allowed-hostname',
    'allowed-hostname': 'client-cert-allowed-hostname',
    'client-cert-file': 'client-cert-file',
    'client-key-file': 'client-key-file',
  },
  'peer-transport-security': {
    'cert-file': 'peer-cert-file',
    'key-file': 'peer-key-file',
    'client-cert-auth': 'peer-client-cert-auth',
    'trusted-ca-file': 'peer-trusted-ca-file',
    'auto-tls': 'peer-auto-tls',
    'allowed-cn': 'peer-cert-allowed-cn',
    'allowed-hostname': 'peer-cert-allowed-hostname',
    'crl-file': 'peer-crl-file',
    'client-cert-file': 'peer-client-cert-file',
    'client-key-file': 'peer-client-key-file',
    'skip-client-san-verification': 'peer-skip-client-san-verification',
  },
}

/**
 * Flags over environment over defaults; a config file instead of both when one is named (kv.md section 10). Collects every
 * problem instead of stopping at the first.
 */
export function readFlags(input: SettingsInput): RawSettings {
  const raw: RawSettings = { values: new Map(), given: new Set(), warnings: [], problems: [] }
  for (const [name, flag] of Object.entries(flags)) {
    if (flag.value !== undefined) raw.values.set(name, flag.value)
  }
  const fromFlags = parseArguments(input.argv, raw.problems)
  const file = fromFlags.get('config-file') ?? input.env['ETCD_CONFIG_FILE']
  if (file !== undefined) {
    readConfigFile(file, input, raw)
    return raw
  }
  for (const name of Object.keys(flags)) {
    const variable = name.toUpperCase().replaceAll('-', '_')
    const value = input.env[`ETCD_${variable}`] ?? input.env[`ETCD_EXPERIMENTAL_${variable}`]
    if (value !== undefined && !fromFlags.has(name)) give(raw, name, value, 'environment')
  }
  for (const [name, value] of fromFlags) give(raw, name, value, 'flag')
  return raw
}

/** `--name value`, `--name=value`, one dash or two; flags without a value are true. */
export function parseArguments(argv: string[], problems: string[]): Map<string, string> {
  const found = new Map<string, string>()
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at]!
    const match = /^--?([a-z0-9][a-z0-9-]*)(?:=(.*))?$/s.exec(argument)
    if (!match) {
      problems.push(`'${argument}' is not a valid flag`)
      continue
    }
    const name = match[1] === 'config-file' ? match[1] : flagName(match[1]!)
    if (name === undefined) {
      problems.push(`flag provided but not defined: -${match[1]}`)
      continue
    }
    const flag = flags[name]
    if (match[2] !== undefined) found.set(name, match[2])
    else if (flag?.kind === 'flag') found.set(name, 'true')
    else if (at + 1 < argv.length) found.set(name, argv[++at]!)
    else problems.push(`flag needs an argument: -${name}`)
  }
  return found
}

function readConfigFile(path: string, input: SettingsInput, raw: RawSettings): void {
  let document: unknown
  try {
    document = parseYaml(input.readFile(path))
  } catch (error) {
    raw.problems.push(`config file ${path}: ${(error as Error).message.split('\n')[0]}`)
    return
  }
  if (document === null || document === undefined) return
  if (typeof document !== 'object' || Array.isArray(document)) {
    raw.problems.push(`config file ${path}: is not a mapping`)
    return
  }
  for (const [name, value] of Object.entries(document)) {
    const section = securitySections[name]
    if (!section) {
      give(raw, name, textOf(value), path)
      continue
    }
    for (const [inner, innerValue] of Object.entries((value ?? {}) as Record<string, unknown>)) {
      give(raw, section[inner] ?? `${name}.${inner}`, textOf(innerValue), path)
    }
  }
}

const textOf = (value: unknown): string =>
  Array.isArray(value) ? value.map(String).join(',') : value === null ? '' : String(value)

/** What Go's flags take for true and false. */
const truths: Record<string, string> = {
  ...Object.fromEntries(['1', 't', 'T', 'true', 'TRUE', 'True'].map((text) => [text, 'true'])),
  ...Object.fromEntries(['0', 'f', 'F', 'false', 'FALSE', 'False'].map((text) => [text, 'false'])),
}

function give(raw: RawSettings, given: string, text: string, from: string): void {
  const name = flagName(given)
  const flag = name && flags[name]
  const value = flag && flag.kind === 'flag' ? (truths[text] ?? text) : text
  if (!flag) {
    raw.problems.push(`${from}: unknown setting ${given}`)
    return
  }
  const problem = kindProblem(flag, value)
  if (problem) raw.problems.push(`--${name}: ${problem}`)
  else if (flag.fate === 'refused' && !flag.unless?.includes(value)) {
    raw.problems.push(`--${name}=${value} is not supported: ${flag.why}`)
  } else if (flag.fate === 'tuning') raw.warnings.push(`--${name} has no effect: ${flag.instead}`)
  raw.values.set(name, value)
  raw.given.add(name)
}

function kindProblem(flag: Flag, value: string): string | undefined {
  if (flag.kind === 'number' && !/^-?\d+$/.test(value)) return `${JSON.stringify(value)} is not a number`
  if (flag.kind === 'flag' && value !== 'true' && value !== 'false') return 'is either true or false'
  if (flag.kind === 'duration' && durationMs(value) === undefined) {
    return `${JSON.stringify(value)} is not a duration`
  }
  return undefined
}

/** A duration as Go writes it, `1h30m` or `500ms`; a bare number is nanoseconds as in etcd's YAML. */
export function durationMs(text: string): number | undefined {
  if (/^\d+$/.test(text)) return Number(text) / 1e6
  return goDurationMs(text)
}
