import type { z } from 'zod'
import { IgnitionConfig, ignitionVersions } from './ignition.ts'
import { checkIgnition } from './ignition-check.ts'
import type { IgnitionFinding, IgnitionPath } from './ignition-finding.ts'
import { type Position, parseJsonWithPositions, positionOfPath } from './ignition-json.ts'

/** One finding about a config. `path` starts with `$`; line and column count from 1, 0 when there is no position. */
export type IgnitionProblem = {
  path: string
  severity: 'error' | 'warning'
  message: string
  line: number
  column: number
}

export type IgnitionParsing = {
  /** Present when no problem is an error; keys the spec does not know and nulls are gone. */
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
  const { config, findings } = shape(withoutNulls(json.value))
  if (config) findings.push(...checkIgnition(config))
  const problems = findings.map((finding) => placed(finding, json.positions))
  return problems.some(({ severity }) => severity === 'error') || !config
    ? { problems }
    : { config, problems }
}

/** Checks a config that has no text of its own, such as a merged one. */
export function checkMergedIgnition(config: IgnitionConfig): IgnitionProblem[] {
  return checkIgnition(config).map((finding) => placed(finding, new Map()))
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
  return { problems: [{ path: '$', severity: 'error', message, line: 0, column: 0 }] }
}

function versionOf(value: unknown): string | undefined {
  const ignition = (value as { ignition?: { version?: unknown } } | null)?.ignition
  const version = ignition?.version
  return typeof version === 'string' && /^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version) ? version : undefined
}

function placed(finding: IgnitionFinding, positions: Map<string, Position>): IgnitionProblem {
  const position = positionOfPath(positions, finding.path)
  return {
    path: ['$', ...finding.path].join('.'),
    severity: finding.severity,
    message: finding.message,
    line: position?.line ?? 0,
    column: position?.column ?? 0,
  }
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, child]) => child !== null)
      .map(([key, child]) => [key, withoutNulls(child)]),
  )
}

/** Checks the shape; unknown keys become warnings and are taken out. */
function shape(value: unknown): { config?: IgnitionConfig; findings: IgnitionFinding[] } {
  const findings: IgnitionFinding[] = []
  const first = IgnitionConfig.safeParse(value)
  if (first.success) return { config: first.data, findings }
  for (const issue of first.error.issues) {
    if (issue.code !== 'unrecognized_keys') continue
    for (const key of issue.keys) {
      findings.push({ path: [...pathOf(issue), key], severity: 'warning', message: `unused key ${key}` })
    }
  }
  const pruned = structuredClone(value)
  for (const { path } of findings) remove(pruned, path)
  const second = IgnitionConfig.safeParse(pruned)
  if (second.success) return { config: second.data, findings }
  for (const issue of second.error.issues) {
    findings.push({ path: pathOf(issue), severity: 'error', message: messageOf(issue) })
  }
  return { findings }
}

const pathOf = (issue: z.core.$ZodIssue): IgnitionPath =>
  issue.path.map((part) => (typeof part === 'number' ? part : String(part)))

function messageOf(issue: z.core.$ZodIssue): string {
  const missing = issue.code === 'invalid_type' && issue.message.endsWith('received undefined')
  if (missing) return `${String(issue.path.at(-1) ?? 'config')} is required`
  return issue.message
}

function remove(value: unknown, path: IgnitionPath): void {
  let at = value as Record<string | number, unknown>
  for (const part of path.slice(0, -1)) at = at[part] as Record<string | number, unknown>
  delete at[path.at(-1)!]
}
