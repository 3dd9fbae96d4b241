import type { parseIgnition } from '../ignition-parse.ts'
import { knownLayouts, mainframeLayouts } from './boot-device.ts'
import type { ConfigPath, Finding, Severity } from './config-path.ts'
import type { Decoded, Shape } from './decode.ts'
import { looksDecimal } from './file-mode.ts'
import { swapUnitsSince } from './mount-units.ts'
import { hasQuadletExtension, quadletTemplate } from './quadlets.ts'
import type { Spec } from './specs.ts'

type Check = (value: Decoded, path: ConfigPath, report: Reporter) => void
type Reporter = (severity: Severity, path: ConfigPath, message: string) => void

const sourcesMessage = 'only one of the following can be set: inline, local, source'
const bootDisk = '/dev/disk/by-id/coreos-boot-disk'
const roleLabel = 'machineconfiguration.openshift.io/role'
const cexArgument = 'rd.luks.key=/etc/luks/cex.key'

/** Parses a config that is merged into this one. */
export type ParseIgnition = typeof parseIgnition

/** The rules of the source itself, before anything is translated. */
export function checkSource(source: Decoded, spec: Spec, parse: ParseIgnition): Finding[] {
  const findings: Finding[] = []
  const report: Reporter = (severity, path, message) => {
    findings.push({ space: 'yaml', severity, path, message })
  }
  checkConfig(source, spec, report)
  const checks = checksOf(spec, parse)
  walk(source, spec.shape, [], (name, value, path) => checks[name]?.(value, path, report))
  // Sections that are absent have rules too.
  if (spec.openshift) {
    for (const name of ['metadata'] as const)
      if (source[name] === undefined) checks[name]?.({}, [name], report)
  }
  return findings
}

/** Calls `visit` for each structure of the source. */
function walk(
  value: unknown,
  shape: Shape,
  path: ConfigPath,
  visit: (name: string, value: Decoded, path: ConfigPath) => void,
): void {
  if (value === undefined) return
  if (shape.kind === 'list') {
    for (const [index, item] of (value as unknown[]).entries()) walk(item, shape.of, [...path, index], visit)
  }
  if (shape.kind !== 'struct') return
  visit(shape.name, value as Decoded, path)
  for (const [name, field] of Object.entries(shape.fields)) {
    walk((value as Decoded)[name], field, [...path, name], visit)
  }
}

function checksOf(spec: Spec, parse: ParseIgnition): Record<string, Check> {
  return {
    resource: (value, path, report) => checkResource(value, path, { spec, parse }, report),
    filesystem: (value, path, report) => checkMountUnit(value, path, spec, report),
    directory: (value, path, report) => checkMode(value, path, true, report),
    file: (value, path, report) => checkMode(value, path, false, report),
    tree: (value, path, report) => {
      if (!value['local']) report('error', path, 'local is required')
    },
    unit: checkUnitSources,
    dropin: checkUnitSources,
    quadlet: checkQuadlet,
    boot_device: (value, path, report) => checkBootDevice(value, path, spec, report),
    mirror: checkMirror,
    grub_user: (value, path, report) => {
      if (!value['name']) report('error', [...path, 'name'], 'field "name" is required')
      if (!value['password_hash']) {
        report('error', [...path, 'password_hash'], 'field "password_hash" is required')
      }
    },
    metadata: (value, path, report) => {
      if (!value['name']) report('error', [...path, 'name'], 'metadata.name is required')
      if (!value['labels']?.[roleLabel]) {
        report('error', [...path, 'labels'], `${roleLabel} label is required`)
      }
    },
    openshift: (value, path, report) => {
      if (!['', 'default', 'realtime'].includes(value['kernel_type'] ?? '')) {
        report('error', [...path, 'kernel_type'], 'must be empty, "default", or "realtime"')
      }
      for (const list of ['kernel_arguments', 'extensions']) {
        const seen = new Set<unknown>()
        for (const [index, entry] of ((value[list] ?? []) as unknown[]).entries()) {
          if (seen.has(entry)) report('error', [...path, list, index], 'duplicate entry defined')
          seen.add(entry)
        }
      }
    },
  }
}

function checkResource(
  value: Decoded,
  path: ConfigPath,
  { spec, parse }: { spec: Spec; parse: ParseIgnition },
  report: Reporter,
): void {
  const given = ['local', 'inline', 'source'].filter((field) => value[field] !== undefined)
  if (given.length > 1) {
    report('error', [...path, spec.generation === 1 ? 'inline' : given.at(-1)!], sourcesMessage)
    return
  }
  const nested = path[0] === 'ignition' && path[1] === 'config'
  if (!nested || given[0] !== 'inline') return
  checkNestedConfig(Buffer.from(value['inline']).toString('utf8'), path, { spec, parse }, report)
}

/** A config that is merged into this one is checked by the same version's rules; another version's are not known. */
function checkNestedConfig(
  text: string,
  path: ConfigPath,
  { spec, parse }: { spec: Spec; parse: ParseIgnition },
  report: Reporter,
): void {
  let parsed: unknown
  const [first] = parse(text).problems
  // Neither bad JSON nor a wrong type has a path; both are told of a second time at the text.
  const isUnreadable = first?.path === '$' && first.line > 0
  try {
    parsed = JSON.parse(text)
  } catch {}
  if (parsed === undefined || isUnreadable) {
    report('error', [], first?.message ?? 'not valid JSON')
    report('error', [...path, 'inline'], 'config is not valid')
    return
  }
  const version = (parsed as { ignition?: { version?: unknown } } | null)?.ignition?.version
  const known = typeof version === 'string' && /^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)
  if (known && version !== spec.ignition) {
    const message = 'skipping validation for the merge/replace ignition config due to an unkown version'
    report('warning', [...path, 'version'], message)
    return
  }
  if (!known) {
    report('error', ['ignition', 'version'], "invalid config version (couldn't parse)")
    return
  }
  for (const problem of parse(text).problems) {
    const inner = problem.path.split('.').slice(1)
    report(
      problem.severity,
      inner.map((part) => (/^\d+$/.test(part) ? Number(part) : part)),
      problem.message,
    )
  }
}

function checkMountUnit(value: Decoded, path: ConfigPath, spec: Spec, report: Reporter): void {
  if (value['with_mount_unit'] !== true) return
  const swap = value['format'] === 'swap' && spec.generation >= swapUnitsSince
  const noPath = 'path is required if with_mount_unit is true and format is not swap'
  const noFormat = 'format is required if with_mount_unit is true'
  if (!value['format']) report('error', [...path, 'format'], noFormat)
  const both = spec.generation < swapUnitsSince
  if ((both || value['format']) && !swap && !value['path']) report('error', [...path, 'path'], noPath)
}

function checkMode(value: Decoded, path: ConfigPath, directory: boolean, report: Reporter): void {
  if (value['mode'] === undefined || !looksDecimal(value['mode'], directory)) return
  const message =
    'unreasonable mode would be reasonable if specified in octal; remember to add a leading zero'
  report('warning', [...path, 'mode'], message)
}

const checkUnitSources: Check = (value, path, report) => {
  if (value['contents'] === undefined || value['contents_local'] === undefined) return
  const message = 'only one of the following can be set: contents, contents_local'
  report('error', [...path, 'contents_local'], message)
}

const checkQuadlet: Check = (value, path, report) => {
  checkUnitSources(value, path, report)
  const name = (value['name'] ?? '') as string
  const hasContents = value['contents'] !== undefined || value['contents_local'] !== undefined
  if (quadletTemplate(name) !== undefined && hasContents) {
    report('error', path, 'template instances cannot have contents')
  }
  if (!hasQuadletExtension(name)) report('error', [...path, 'name'], 'invalid quadlet extension')
}

const checkMirror: Check = (value, path, report) => {
  if (value['devices']?.length === 1) {
    report('error', [...path, 'devices'], 'mirroring requires at least two devices')
  }
}

function checkBootDevice(value: Decoded, path: ConfigPath, spec: Spec, report: Reporter): void {
  const rules = spec.bootDevice
  if (!rules) return
  const layout = value['layout'] as string | undefined
  const luks = (value['luks'] ?? {}) as Decoded
  const mirrored = (value['mirror']?.devices ?? []).length > 0
  if (layout !== undefined) checkLayout(layout, { luks, mirrored, rules, path, report })
  if (luks['cex']?.enabled === true) {
    const message = 'when using cex the targeted architecture must match s390x'
    if (layout === undefined) report('error', [...path, 'luks', 'cex'], message)
    else if (!layout.startsWith('s390x')) report('error', [...path, 'layout'], message)
    if ((luks['tang'] ?? []).length > 0 || luks['tpm2'] === true) {
      report('error', [...path, 'luks'], 'cannot use cex with clevis')
    }
  }
  // An entry of Tang that says nothing is no method.
  const tang = ((luks['tang'] ?? []) as Decoded[]).some((server) =>
    [server['advertisement'], server['thumbprint'], server['url'] || undefined].some(
      (each) => each !== undefined,
    ),
  )
  const method = luks['cex']?.enabled === true || luks['tpm2'] === true || tang
  if (rules.methodRequired && luks['device'] && !method) {
    // The reference names the section twice.
    report('error', [...path, 'luks', 'luks'], 'no method specified for luks')
  }
  if (mirrored && layout === undefined) {
    const message = 'boot_device.layout should be specified when boot_device.mirror is specified'
    report(rules.mirrorNeedsLayout, [...path, 'mirror'], message)
  }
  // The reference tells this of the section and again of the mirror itself.
  if (value['mirror']) checkMirror(value['mirror'], [...path, 'mirror'], report)
}

function checkLayout(
  layout: string,
  about: {
    luks: Decoded
    mirrored: boolean
    rules: NonNullable<Spec['bootDevice']>
    path: ConfigPath
    report: Reporter
  },
): void {
  const { luks, mirrored, rules, report } = about
  const path = [...about.path, 'layout']
  const mainframe = Object.hasOwn(mainframeLayouts, layout) && rules.s390x
  if (!knownLayouts.includes(layout) && !mainframe) {
    const names = rules.s390x ? [...knownLayouts, ...Object.keys(mainframeLayouts)] : knownLayouts
    report('error', path, `layout must be one of: ${names.toSorted().join(', ')}`)
  }
  const devicePattern =
    layout === 's390x-eckd' ? /\/dev\/dasd[a-z]$/ : layout === 's390x-zfcp' ? /\/dev\/sd[a-z]$/ : undefined
  if (mainframe && devicePattern) {
    if (!luks['device']) {
      report('error', path, 'device is required for layouts: s390x-eckd, s390x-zfcp')
    } else if (!devicePattern.test(luks['device'])) {
      const message =
        'device name must start with /dev/dasd on s390x-eckd layout or /dev/sd on s390x-zfcp layout'
      report('error', path, message)
    }
  }
  if (rules.s390x && layout.startsWith('s390x') && mirrored) {
    report('error', path, 'mirroring not supported on layouts: s390x-eckd, s390x-zfcp, s390x-virt')
  }
}

/** Rules across sections. */
function checkConfig(source: Decoded, spec: Spec, report: Reporter): void {
  const storage = (source['storage'] ?? {}) as Decoded
  if (spec.checks.reuseByLabel) {
    checkReuse(storage, source['boot_device']?.mirror?.devices ?? [], report)
  }
  if (spec.checks.mountPoints) {
    for (const [index, filesystem] of ((storage['filesystems'] ?? []) as Decoded[]).entries()) {
      const path = filesystem['path'] as string | undefined
      if (path === undefined || filesystem['with_mount_unit'] !== true || /^\/(etc|var)(\/|$)/.test(path))
        continue
      const message = 'path must be under /etc or /var if with_mount_unit is true'
      report('error', ['storage', 'filesystems', index, 'path'], message)
    }
  }
  if (!spec.openshift?.cexArgument) return
  const volumes = (storage['luks'] ?? []) as Decoded[]
  const cex =
    source['boot_device']?.luks?.cex?.enabled === true ||
    volumes.some((luks) => luks['cex']?.enabled === true && luks['name'] === 'root')
  if (cex && !(source['openshift']?.kernel_arguments ?? []).includes(cexArgument)) {
    const message = `'${cexArgument}' must be set as kernel argument when CEX is enabled for the boot device`
    report('error', ['openshift', 'kernel_arguments'], message)
  }
}

/** A mirrored disk is wiped, so nothing on it is reused. */
function checkReuse(storage: Decoded, mirrored: string[], report: Reporter): void {
  const message = `partitions cannot be reused by label; number must be specified except on boot disk (${bootDisk}) or when wipe_table is true`
  for (const [index, disk] of ((storage['disks'] ?? []) as Decoded[]).entries()) {
    if (disk['device'] === bootDisk || disk['wipe_table'] === true) continue
    if (mirrored.includes(disk['device'])) continue
    for (const [at, partition] of ((disk['partitions'] ?? []) as Decoded[]).entries()) {
      if (!partition['number'] && partition['label'] !== undefined) {
        report('warning', ['storage', 'disks', index, 'partitions', at, 'number'], message)
      }
    }
  }
}
