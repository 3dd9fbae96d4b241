import { stringify } from 'yaml'
import type { IgnitionConfig } from '../ignition.ts'
import { checkIgnition } from '../ignition-check.ts'
import { type Translation, translateBase } from './base.ts'
import { addBootDevice } from './boot-device.ts'
import { checkPartitions } from './check-partitions.ts'
import { checkSource, type ParseIgnition } from './check-source.ts'
import { type Finding, pathKey, type Severity, showPath, snakePath } from './config-path.ts'
import { type Decoded, decodeSource, findUnusedKeys, type Struct } from './decode.ts'
import type { FilesPort } from './files.ts'
import { findFiltered } from './filters.ts'
import { addGrubUsers } from './grub.ts'
import { addKilnFiles, type ParsePod } from './kiln-variant.ts'
import type { Traced } from './merge-traced.ts'
import { addMountUnits } from './mount-units.ts'
import { addFipsCipher, checkOpenShift, findElided, machineConfig, replaceGrubAppend } from './openshift.ts'
import { addQuadlets } from './quadlets.ts'
import { parseSource, placeOf, type SourceNode } from './source.ts'
import { findSpec, type Spec } from './specs.ts'
import { addTrees } from './trees.ts'

/** One finding about a Butane config; `path` is `$` and the keys of the YAML source. */
export type ButaneProblem = {
  severity: Severity
  path: string
  message: string
  /** Both count from 1; 0 when the source has no such place. */
  line: number
  column: number
}

export type Documents = { parseIgnition: ParseIgnition; parsePod: ParsePod }

export type ButaneOptions = {
  /** Checks of documents that are written into this one; given, so that only who needs them loads them. */
  documents: Documents
  /** What `local` fields may read; without it they are refused. */
  files?: FilesPort
  /** Give the Ignition config itself where the variant would wrap it. */
  raw?: boolean
  /** Indent the JSON. */
  pretty?: boolean
}

export type ButaneResult = {
  problems: ButaneProblem[]
} & (
  | { ok: true; config: IgnitionConfig; output: string }
  /** `failure` says at which point it ended, in a sentence. */
  | { ok: false; failure: string }
)

const header: Struct = {
  kind: 'struct',
  name: 'the header',
  fields: { version: { kind: 'string' }, variant: { kind: 'string' } },
}
const versionPattern = /^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/
const sourceInvalid = 'source config is invalid'

/**
 * Translates a Butane config to Ignition by the rules of its variant and version (Butane configuration
 * specifications). All findings are collected; errors leave no config.
 */
export function translateButane(text: string, options: ButaneOptions): ButaneResult {
  const parsed = parseSource(text)
  if (!parsed.ok) return failed(`Error unmarshaling yaml: yaml: ${parsed.message}`)
  return translateTree(parsed.root, options)
}

/** The same for a source that is no YAML: its values, each with the place it was written at. */
export function translateTree(root: SourceNode | undefined, options: ButaneOptions): ButaneResult {
  const head = decodeSource(root, header)
  if (head.problems.length > 0) {
    return failed(`Error unmarshaling yaml: yaml: unmarshal errors:\n${indent(head.problems)}`)
  }
  const variant = (head.value['variant'] ?? '') as string
  const version = (head.value['version'] ?? '') as string
  if (variant === '') return failed('error parsing variant; must be specified')
  if (!versionPattern.test(version)) return failed('error parsing version; must be a valid semver')
  if (variant === 'rhcos') return failed('rhcos variant has been removed; use openshift variant instead')
  const spec = findSpec(variant, version)
  if (!spec) return failed(`No translator exists for variant ${variant} with version ${version}`)
  const { value: source, problems } = decodeSource(root, spec.shape)
  if (problems.length > 0) return failed(`yaml: unmarshal errors:\n${indent(problems)}`)
  return translateSource(source, root, spec, options)
}

function translateSource(
  source: Decoded,
  root: SourceNode | undefined,
  spec: Spec,
  options: ButaneOptions,
): ButaneResult {
  const wrapped = spec.openshift !== undefined && options.raw !== true
  const findings = [
    ...findUnusedKeys(root, spec.shape, source),
    ...checkSource(source, spec, options.documents.parseIgnition),
  ]
  let origins: Traced['origins'] = new Map()
  const ended = (failure: string): ButaneResult => ({
    ok: false,
    failure,
    problems: findings.map((finding) => placed(finding, { root, origins, wrapped })),
  })
  if (isFatal(findings)) return ended(sourceInvalid)
  const translated = desugar(source, spec, options, findings)
  origins = translated.origins
  if (isFatal(findings)) return ended(sourceInvalid)
  findings.push(...findFiltered(translated.config, spec.filters))
  if (isFatal(findings)) return ended(sourceInvalid)
  const config = withNumbers(translated.config) as unknown as IgnitionConfig
  for (const { severity, path, message } of checkIgnition(config)) {
    findings.push({ space: 'json', severity, path, message })
  }
  if (isFatal(findings)) return ended('config generated was invalid')
  const { problems } = ended('')
  const output = wrapped
    ? renderMachineConfig(machineConfig(source, translated.config))
    : JSON.stringify(translated.config, withDigits, options.pretty ? 2 : undefined)
  return { ok: true, config, output, problems }
}

/** Everything between the source and the Ignition config that it stands for. */
function desugar(source: Decoded, spec: Spec, options: ButaneOptions, findings: Finding[]): Traced {
  const uncompressed = spec.openshift?.compress === false
  const encoding = spec.generation === 1 ? 'escaped' : uncompressed ? 'uncompressed' : 'compressed'
  const how: Translation = {
    files: options.files,
    encoding,
    ignition: spec.ignition,
    origins: new Map(),
    findings,
  }
  let traced: Traced = { config: translateBase(source, spec.shape, how), origins: how.origins }
  traced = addMountUnits(source, traced, spec.generation)
  how.origins = traced.origins
  addTrees(source, traced.config, how)
  addQuadlets(source, traced.config, how)
  if (spec.kiln) addKilnFiles(source, traced.config, how, options.documents.parsePod)
  if (isFatal(findings)) return traced
  if (spec.bootDevice) traced = addBootDevice(source, traced)
  findings.push(...checkPartitions(traced.config, spec.checks))
  if (spec.grub) traced = addGrubUsers(source, traced, { encoding })
  if (!spec.openshift) return traced
  if (spec.openshift.grubContents) replaceGrubAppend(traced)
  if (spec.openshift.fipsCipher) addFipsCipher(source, traced)
  findings.push(...checkOpenShift(traced.config, spec.openshift))
  if (options.raw) findings.push(...findElided(source))
  return traced
}

/** The checks know numbers alone; an integer that is none exactly is out of every range they have. */
function withNumbers(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value)
  if (Array.isArray(value)) return value.map(withNumbers)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, withNumbers(child)]))
}

/** What is written has every digit. */
const withDigits = (_: string, value: unknown): unknown =>
  typeof value === 'bigint' ? rawJson(String(value)) : value
const rawJson = (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON

const isFatal = (findings: readonly Finding[]): boolean =>
  findings.some(({ severity }) => severity === 'error')

const failed = (failure: string): ButaneResult => ({ ok: false, failure, problems: [] })

const indent = (lines: string[]): string => lines.map((line) => `  ${line}`).join('\n')

/** Finds the place in the source that a finding is about, also one about the config that was made of it. */
function placed(
  finding: Finding,
  about: { root: SourceNode | undefined; origins: Traced['origins']; wrapped: boolean },
): ButaneProblem {
  let path = finding.path
  if (finding.space === 'json') {
    const outer = about.wrapped ? ['spec', 'config'] : []
    path = about.origins.get(pathKey(path)) ?? [...outer, ...snakePath(path)]
  }
  const place = placeOf(about.root, path, finding.onKey)
  return {
    severity: finding.severity,
    path: showPath(path),
    message: finding.message,
    line: place?.line ?? 0,
    column: place?.column ?? 0,
  }
}

const renderMachineConfig = (resource: Decoded): string =>
  `# Generated by Butane; do not edit\n${stringify(resource, { sortMapEntries: true, lineWidth: 0 }).trimEnd()}`
