import type { z } from 'zod'
import { IgnitionConfig } from './ignition.ts'
import type { IgnitionFinding, IgnitionPath } from './ignition-finding.ts'
import { specHasField } from './ignition-versions.ts'

/**
 * The shape of a config by its own spec: keys that the spec does not know become warnings and are taken out, values of
 * another type are errors.
 */
export function shapeIgnition(
  value: unknown,
  version: string,
): { config?: IgnitionConfig; findings: IgnitionFinding[] } {
  const findings: IgnitionFinding[] = []
  const known: unknown = withoutNewer(value, { path: [], field: '' }, specHasField(version), findings)
  const first = IgnitionConfig.safeParse(known)
  // The schema knows neither unknown keys nor null: there is nothing to take out.
  if (first.success) return { config: first.data, findings }
  const unknown: IgnitionPath[] = []
  for (const issue of first.error.issues) {
    if (issue.code !== 'unrecognized_keys') continue
    for (const key of issue.keys) unknown.push([...pathOf(issue), key])
  }
  findings.push(...unknown.map(unusedKey))
  for (const path of unknown) remove(known, path)
  const pruned = withoutNulls(known, [], findings)
  const second = IgnitionConfig.safeParse(pruned)
  if (second.success) return { config: second.data, findings }
  for (const issue of second.error.issues) {
    findings.push({ path: pathOf(issue), severity: 'error', message: messageOf(issue) })
  }
  return { findings }
}

const unusedKey = (path: IgnitionPath): IgnitionFinding => ({
  path,
  severity: 'warning',
  message: `unused key ${path.at(-1)}`,
  atKey: true,
})

/** Fields that are structures, where null is no absent value. */
const structures = new Set([
  'config',
  'timeouts',
  'security',
  'tls',
  'proxy',
  'storage',
  'systemd',
  'passwd',
  'kernelArguments',
  'replace',
  'verification',
  'contents',
  'keyFile',
  'user',
  'group',
  'clevis',
  'custom',
  'cex',
])

/** Null counts as absent; in place of a structure it is worth a warning. */
function withoutNulls(value: unknown, path: IgnitionPath, findings: IgnitionFinding[]): unknown {
  const warn = (at: IgnitionPath): void => {
    findings.push({ path: at, severity: 'warning', message: 'null stands where a structure belongs' })
  }
  if (Array.isArray(value)) {
    const ofStructures =
      !/^(shouldExist|shouldNotExist|options|mountOptions|openOptions|noProxy|devices|groups|sshAuthorizedKeys)$/.test(
        String(path.at(-1)),
      )
    return value.map((child, index) => {
      if (child !== null) return withoutNulls(child, [...path, index], findings)
      if (ofStructures) warn([...path, index])
      return ofStructures ? {} : ''
    })
  }
  if (typeof value !== 'object' || value === null) return value
  const kept: [string, unknown][] = []
  for (const [key, child] of Object.entries(value)) {
    if (child !== null) kept.push([key, withoutNulls(child, [...path, key], findings)])
    else if (structures.has(key) && isStructure(path, key)) warn([...path, key])
  }
  return Object.fromEntries(kept)
}

/** A unit's contents and a pin's config are texts. */
const isStructure = (path: IgnitionPath, key: string): boolean =>
  !(key === 'contents' && path[0] === 'systemd') && !(key === 'config' && path.at(-1) === 'custom')

/** Takes out what only newer specs know; `field` is the path without indices. */
function withoutNewer(
  value: unknown,
  { path, field }: { path: IgnitionPath; field: string },
  known: (field: string) => boolean,
  findings: IgnitionFinding[],
): unknown {
  if (Array.isArray(value)) {
    return value.map((child, index) =>
      withoutNewer(child, { path: [...path, index], field }, known, findings),
    )
  }
  if (typeof value !== 'object' || value === null) return value
  const kept: [string, unknown][] = []
  for (const [key, child] of Object.entries(value)) {
    const at = { path: [...path, key], field: field === '' ? key : `${field}.${key}` }
    if (known(at.field)) kept.push([key, withoutNewer(child, at, known, findings)])
    else findings.push(unusedKey(at.path))
  }
  return Object.fromEntries(kept)
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
