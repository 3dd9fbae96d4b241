import { installSection } from './unit-file.ts'
import { expandInstallName, parseUnitName, templateOf } from './unit-name.ts'

/** A unit as the config asks for it (Ignition's systemd.units). */
export type UnitSpec = {
  name: string
  enabled?: boolean | undefined
  mask?: boolean | undefined
  contents?: string | undefined
  dropins?: { name: string; contents?: string | undefined }[] | undefined
}

/** What the planner must know of the system: texts of a unit that exists already, and what is linked to it. */
export type InstalledUnits = {
  /** Unit file and drop-ins that the system has for this name, in reading order; empty when there is none. */
  texts(name: string): string[]
  /** Absolute paths of the links in /etc/systemd/system that enable this unit. */
  enabledBy(name: string): string[]
  /** Whether /etc/systemd/system/NAME is a link to /dev/null. */
  masked(name: string): boolean
}

export type UnitAction =
  | { kind: 'write'; path: string; contents: string }
  | { kind: 'link'; path: string; target: string }
  | { kind: 'remove'; path: string }

export type UnitPlan = { actions: UnitAction[]; warnings: string[] }

const folder = '/etc/systemd/system'
/** Where presets of the config go; sorts before those of the image. */
export const presetPath = '/etc/systemd/system-preset/20-ignition.preset'
/** `Also=` may name units that name others; more than this is a loop. */
const alsoDepthMax = 16

/**
 * Plans units, drop-ins, masks, the preset file, and, with `links`, those that `systemctl enable` would make: a machine
 * that gets its machine-id before its first boot has no systemd that applies presets by itself.
 */
export function planUnits(
  units: UnitSpec[],
  installed: InstalledUnits,
  how: { links: boolean } = { links: true },
): UnitPlan {
  const actions: UnitAction[] = []
  const warnings: string[] = []
  for (const unit of units) actions.push(...planFiles(unit, installed))
  const disabled: string[] = []
  for (const unit of units) {
    if (unit.enabled !== false) continue
    const links = installed.enabledBy(unit.name)
    if (links.length === 0) continue
    disabled.push(unit.name)
    actions.push(...links.map((path): UnitAction => ({ kind: 'remove', path })))
  }
  const enabled = units.filter((unit) => unit.enabled === true)
  const preset = presetLines(
    enabled.map((unit) => unit.name),
    disabled,
  )
  if (preset.length > 0) {
    actions.push({ kind: 'write', path: presetPath, contents: preset.map((line) => `${line}\n`).join('') })
  }
  const links = new Map<string, string>()
  for (const unit of enabled) {
    if (unit.mask === true) warnings.push(`unit ${unit.name} is masked, so enabling it does nothing`)
    else enableLinks({ name: unit.name, units, installed, links, warnings, depth: 0 })
  }
  if (!how.links) return { actions, warnings }
  for (const [path, target] of links) actions.push({ kind: 'link', path, target })
  return { actions, warnings }
}

/** One line for the log and for tests. */
export function describeUnitAction(action: UnitAction): string {
  switch (action.kind) {
    case 'write':
      return `write ${action.path} (${action.contents.length} characters)`
    case 'link':
      return `link ${action.path} -> ${action.target}`
    case 'remove':
      return `remove ${action.path}`
  }
}

function planFiles(unit: UnitSpec, installed: InstalledUnits): UnitAction[] {
  const actions: UnitAction[] = []
  const path = `${folder}/${unit.name}`
  if (unit.mask === false && installed.masked(unit.name)) actions.push({ kind: 'remove', path })
  if (unit.contents) actions.push({ kind: 'write', path, contents: unit.contents })
  for (const dropin of unit.dropins ?? []) {
    if (dropin.contents !== undefined) {
      actions.push({ kind: 'write', path: `${path}.d/${dropin.name}`, contents: dropin.contents })
    }
  }
  if (unit.mask === true) actions.push({ kind: 'link', path, target: '/dev/null' })
  return actions
}

/** Preset lines (systemd.preset(5)), instances of one template on one line, sorted by unit. */
function presetLines(enabled: string[], disabled: string[]): string[] {
  const instances = new Map<string, string[]>()
  const lines: { unit: string; line: string }[] = []
  for (const name of enabled) {
    const template = templateOf(name)
    const instance = parseUnitName(name).instance
    if (template === undefined || instance === undefined) lines.push({ unit: name, line: `enable ${name}` })
    else instances.set(template, [...(instances.get(template) ?? []), instance])
  }
  for (const [template, names] of instances) {
    lines.push({ unit: template, line: `enable ${template} ${names.join(' ')}` })
  }
  for (const name of disabled) lines.push({ unit: name, line: `disable ${name}` })
  return lines.sort((a, b) => (a.unit < b.unit ? -1 : a.unit > b.unit ? 1 : 0)).map(({ line }) => line)
}

type Enabling = {
  name: string
  units: UnitSpec[]
  installed: InstalledUnits
  links: Map<string, string>
  warnings: string[]
  depth: number
}

/** The links of `systemctl enable NAME`, added to `links`. */
function enableLinks(enabling: Enabling): void {
  const { name, units, installed, links, warnings, depth } = enabling
  const source = templateOf(name) ?? name
  const texts = [name, ...(source === name ? [] : [source])].flatMap((unit) =>
    unitTexts(unit, units, installed),
  )
  const install = installSection(texts)
  if (!install) {
    const why = texts.length === 0 ? 'does not exist' : 'has no [Install] section'
    warnings.push(`unit ${name} is enabled but ${why}, so nothing starts it`)
    return
  }
  const instanceOf = parseUnitName(name).template ? install.defaultInstance : undefined
  const linked = instanceOf === undefined ? name : name.replace('@.', `@${instanceOf}.`)
  const target = unitPath(source, units)
  const wants: [string[], string][] = [
    [install.wantedBy, 'wants'],
    [install.requiredBy, 'requires'],
    [install.upheldBy, 'upholds'],
  ]
  if (parseUnitName(linked).template && wants.some(([names]) => names.length > 0)) {
    warnings.push(`unit ${name} is a template without DefaultInstance, so enabling it does nothing`)
  } else {
    for (const [names, suffix] of wants) {
      for (const by of names) {
        links.set(`${folder}/${expandInstallName(by, linked)}.${suffix}/${linked}`, target)
      }
    }
  }
  for (const alias of install.alias) links.set(`${folder}/${expandInstallName(alias, linked)}`, target)
  if (depth >= alsoDepthMax) return
  for (const also of install.also) {
    const other = expandInstallName(also, linked)
    if (other !== name) enableLinks({ ...enabling, name: other, depth: depth + 1 })
  }
}

/** Text of a unit with its drop-ins, the config's own before the system's. */
function unitTexts(name: string, units: UnitSpec[], installed: InstalledUnits): string[] {
  const spec = units.find((unit) => unit.name === name)
  const dropins = (spec?.dropins ?? []).flatMap((dropin) => (dropin.contents ? [dropin.contents] : []))
  return spec?.contents ? [spec.contents, ...dropins] : [...installed.texts(name), ...dropins]
}

function unitPath(name: string, units: UnitSpec[]): string {
  const written = units.some((unit) => unit.name === name && unit.contents)
  return written ? `${folder}/${name}` : `/usr/lib/systemd/system/${name}`
}
