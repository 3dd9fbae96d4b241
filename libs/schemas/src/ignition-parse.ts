import type { IgnitionConfig } from './ignition.ts'
import { checkIgnition } from './ignition-check.ts'
import { decodeIgnition, decodeVersion, findUnusedKeys } from './ignition-decode.ts'
import type { IgnitionFinding } from './ignition-finding.ts'
import {
  type JsonNode,
  offsetOfKey,
  offsetOfPath,
  type ParsedJson,
  type Position,
  parseJson,
} from './ignition-json.ts'
import { ignitionVersions, translateUp } from './ignition-versions.ts'

/** One finding about a config. `path` starts with `$`; line and column count from 1, 0 when there is no position. */
export type IgnitionProblem = {
  path: string
  /** The field of a value with a wrong type, which the reference tells of the whole config (`path` is `$`). */
  field?: string
  severity: 'error' | 'warning'
  message: string
  line: number
  column: number
}

export type IgnitionParsing = {
  /** Present when no problem is an error, as the newest spec has it; keys its own spec does not know and nulls are gone. */
  config?: IgnitionConfig
  problems: IgnitionProblem[]
}

/**
 * Parses and checks one config text. All problems are collected, but a value of a wrong type hides all others;
 * warnings leave the config usable. `versions` are the spec versions taken, all by default.
 */
export function parseIgnition(
  text: string,
  { versions = ignitionVersions }: { versions?: readonly string[] } = {},
): IgnitionParsing {
  if (text === '') return unparsed('not a config (empty)')
  const json = parseJson(text)
  if (!json.ok) return failedAt(json.fault.at, json.fault.message)
  const stub = decodeVersion(json.root)
  if (!stub.ok) return failedAt(json.positionOf(stub.fault.offset), stub.fault.message, stub.fault.path)
  const version = parseVersion(stub.version ?? '')
  if (version === undefined) return unparsed("invalid config version (couldn't parse)")
  if (!versions.includes(version)) {
    return unparsed(`unsupported config version ${version}; this agent reads ${versions.join(', ')}`)
  }
  const decoded = decodeIgnition(json.root, version)
  if (!decoded.ok)
    return failedAt(json.positionOf(decoded.fault.offset), decoded.fault.message, decoded.fault.path)
  const { config } = decoded
  config.ignition.version = version
  // The reference reads places with a second decoder, which gives up at a number that no float can hold.
  const placeless = hasHugeNumber(json.root)
  const findings = [
    ...checkIgnition(config),
    ...(placeless ? [] : findUnusedKeys(config, json.root, version)),
  ]
  const problems = findings.map((finding) => placed(finding, placeless ? undefined : json))
  return problems.some(({ severity }) => severity === 'error')
    ? { problems }
    : { config: translateUp(config), problems }
}

/** Checks a config that has no text of its own, such as a merged one. */
export function checkMergedIgnition(config: IgnitionConfig): IgnitionProblem[] {
  return checkIgnition(config).map((finding) => placed(finding))
}

/** The line of a problem as Ignition's validator prints it. */
export function describeIgnitionProblem(problem: IgnitionProblem): string {
  const { severity, path, line, column, message } = problem
  if (line === 0)
    return path === '$' ? `couldn't parse config: ${message}` : `${severity} at ${path}: ${message}`
  return path === '$'
    ? `${severity} at line ${line} col ${column}: ${message}`
    : `${severity} at ${path}, line ${line} col ${column}: ${message}`
}

function unparsed(message: string): IgnitionParsing {
  return failedAt({ line: 0, column: 0 }, message)
}

function failedAt({ line, column }: Position, message: string, field?: string): IgnitionParsing {
  const about = field === undefined ? {} : { field }
  return { problems: [{ path: '$', ...about, severity: 'error', message, line, column }] }
}

/** A version (semver.org) without the zeros that its numbers may start with here; undefined when it is none. */
function parseVersion(text: string): string | undefined {
  const match = /^(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]*)?(\+[0-9A-Za-z.-]*)?$/.exec(text)
  if (!match) return undefined
  const [, major, minor, patch, preRelease = '', metadata = ''] = match
  return `${Number(major)}.${Number(minor)}.${Number(patch)}${preRelease}${metadata}`
}

function hasHugeNumber(root: JsonNode): boolean {
  const left: JsonNode[] = [root]
  for (let node = left.pop(); node; node = left.pop()) {
    if (node.kind === 'number' && !Number.isFinite(Number(node.text))) return true
    if (node.kind === 'list') for (const item of node.items) left.push(item)
    if (node.kind === 'object') for (const { value } of node.entries) left.push(value)
  }
  return false
}

/** A finding about a key that should not be is placed at the key, any other at the value. */
function placed(finding: IgnitionFinding, json?: ParsedJson): IgnitionProblem {
  const offset =
    json &&
    ((finding.atKey ? offsetOfKey(json.root, finding.path) : undefined) ??
      offsetOfPath(json.root, finding.path))
  const position = offset === undefined ? undefined : json?.positionOf(offset)
  return {
    path: ['$', ...finding.path].join('.'),
    severity: finding.severity,
    message: finding.message,
    line: position?.line ?? 0,
    column: position?.column ?? 0,
  }
}
