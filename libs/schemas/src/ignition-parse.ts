import type { IgnitionConfig } from './ignition.ts'
import { checkIgnition } from './ignition-check.ts'
import type { IgnitionFinding } from './ignition-finding.ts'
import { type ParsedJson, parseJsonWithPositions, positionOfPath } from './ignition-json.ts'
import { shapeIgnition } from './ignition-shape.ts'
import { ignitionVersions, translateUp } from './ignition-versions.ts'

/** One finding about a config. `path` starts with `$`; line and column count from 1, 0 when there is no position. */
export type IgnitionProblem = {
  path: string
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
 * Parses and checks one config text. All problems are collected; warnings leave the config usable. `versions` are the
 * spec versions taken, all by default.
 */
export function parseIgnition(
  text: string,
  { versions = ignitionVersions }: { versions?: readonly string[] } = {},
): IgnitionParsing {
  if (text.trim() === '') return unparsed('not a config (empty)')
  const json = parseJsonWithPositions(text)
  if (!json.ok) {
    const { message, at } = json.fault
    return { problems: [{ path: '$', severity: 'error', message, line: at.line, column: at.column }] }
  }
  const version = versionOf(json.value)
  if (version === undefined) return unparsed("invalid config version (couldn't parse)")
  if (!versions.includes(version)) {
    return unparsed(`unsupported config version ${version}; this agent reads ${versions.join(', ')}`)
  }
  const { config, findings } = shapeIgnition(json.value, version)
  if (config) findings.push(...checkFractions(config, json.fractions), ...checkIgnition(config))
  const problems = findings.map((finding) => placed(finding, json))
  return problems.some(({ severity }) => severity === 'error') || !config
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

/** Every number of the specification is an integer, and none is written as `420.0` or `1e2`. */
function checkFractions(config: IgnitionConfig, paths: readonly string[]): IgnitionFinding[] {
  return paths.flatMap((joined): IgnitionFinding[] => {
    const path = joined.split('.').map((part) => (/^\d+$/.test(part) ? Number(part) : part))
    const value = path.reduce<unknown>(
      (at, part) => (at as Record<string, unknown> | undefined)?.[part],
      config,
    )
    return typeof value === 'number' ? [{ path, severity: 'error', message: 'expected an integer' }] : []
  })
}

function unparsed(message: string): IgnitionParsing {
  return { problems: [{ path: '$', severity: 'error', message, line: 0, column: 0 }] }
}

function versionOf(value: unknown): string | undefined {
  const ignition = (value as { ignition?: { version?: unknown } } | null)?.ignition
  const version = ignition?.version
  return typeof version === 'string' && /^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version) ? version : undefined
}

/** A finding about a key that should not be is placed at the key, any other at the value. */
function placed(finding: IgnitionFinding, json?: ParsedJson): IgnitionProblem {
  const path = finding.path.join('.')
  const position =
    json && ((finding.atKey && json.keyPositions.get(path)) || positionOfPath(json.positions, finding.path))
  return {
    path: ['$', ...finding.path].join('.'),
    severity: finding.severity,
    message: finding.message,
    line: position?.line ?? 0,
    column: position?.column ?? 0,
  }
}
