import { parseUnit, parseUnitName, templateOf, unitExtensions } from '@kiln/units'
import type { IgnitionConfig } from './ignition.ts'
import { checkDisks, checkFilesystems } from './ignition-check-disks.ts'
import { checkResource } from './ignition-check-resource.ts'
import { type IgnitionFinding, type IgnitionPath, pathProblem, type Report } from './ignition-finding.ts'
import { entryKey, keySpace } from './ignition-merge.ts'

/** The rules a config must keep beyond its shape (Ignition configuration specification), all findings at once. */
export function checkIgnition(config: IgnitionConfig): IgnitionFinding[] {
  const findings: IgnitionFinding[] = []
  const report: Report = (severity, path, message) => findings.push({ severity, path, message })
  const version = config.ignition.version
  checkDuplicates(config, [], report)
  const { merge, replace } = config.ignition.config ?? {}
  for (const [index, resource] of (merge ?? []).entries()) {
    checkResource(resource, { path: ['ignition', 'config', 'merge', index], version, required: true, report })
  }
  if (replace) {
    checkResource(replace, { path: ['ignition', 'config', 'replace'], version, required: true, report })
  }
  const authorities = config.ignition.security?.tls?.certificateAuthorities ?? []
  for (const [index, resource] of authorities.entries()) {
    const path = ['ignition', 'security', 'tls', 'certificateAuthorities', index]
    checkResource(resource, { path, version, required: true, report })
  }
  checkProxy(config, report)
  checkDisks(config, report)
  checkFilesystems(config, report)
  checkNodes(config, report)
  checkUnits(config, report)
  return findings
}

/** Lists with keys hold a key once; files, directories and links share their keys. */
function checkDuplicates(value: unknown, path: IgnitionPath, report: Report): void {
  if (typeof value !== 'object' || value === null) return
  for (const [name, child] of Object.entries(value)) {
    const childPath = [...path, name]
    if (!Array.isArray(child)) {
      checkDuplicates(child, childPath, report)
      continue
    }
    const list = childPath.filter((part) => typeof part === 'string').join('.')
    const space = keySpace(list)
    const earlier = space.slice(0, space.indexOf(list)).flatMap((other) => {
      const entries = (value as Record<string, unknown>)[other.slice(other.lastIndexOf('.') + 1)]
      return Array.isArray(entries) ? entries.map((entry) => entryKey(other, entry)) : []
    })
    const keys = child.map((entry) => entryKey(list, entry))
    for (const index of duplicateEntries(keys, earlier)) {
      report('error', [...childPath, index], 'duplicate entry defined')
    }
    for (const [index, entry] of child.entries()) checkDuplicates(entry, [...childPath, index], report)
  }
}

/** Places of the entries whose key was there before, in the list or among `earlier`. */
export function duplicateEntries(
  keys: (string | undefined)[],
  earlier: Iterable<string | undefined> = [],
): number[] {
  const seen = new Set(earlier)
  return [...keys.entries()].flatMap(([index, key]) => {
    if (key === undefined) return []
    const before = seen.has(key)
    seen.add(key)
    return before ? [index] : []
  })
}

function checkProxy(config: IgnitionConfig, report: Report): void {
  for (const name of ['httpProxy', 'httpsProxy'] as const) {
    const value = config.ignition.proxy?.[name]
    if (value === undefined) continue
    const scheme = URL.canParse(value) ? new URL(value).protocol : undefined
    const path = ['ignition', 'proxy', name]
    if (scheme !== 'http:' && scheme !== 'https:')
      report('error', path, 'proxy URL must be of type http or https')
    else if (name === 'httpsProxy' && scheme === 'http:') {
      report('warning', path, 'insecure HTTP proxy specified for HTTPS')
    }
  }
}

function checkNodes(config: IgnitionConfig, report: Report): void {
  const { version } = config.ignition
  const storage = config.storage ?? {}
  const links = (storage.links ?? []).map((link) => link.path)
  const unitPaths = pathsOfUnits(config)
  for (const list of ['files', 'directories', 'links'] as const) {
    for (const [index, node] of (storage[list] ?? []).entries()) {
      const path = ['storage', list, index]
      const problem = pathProblem(node.path)
      if (problem) report('error', [...path, 'path'], problem)
      if (links.some((link) => link !== '/' && node.path.startsWith(`${link}/`))) {
        const noun = list === 'directories' ? 'directory' : list.slice(0, -1)
        report('error', path, `${noun} path includes link in config`)
      }
      if (unitPaths.has(node.path)) {
        report('error', [...path, 'path'], 'path conflicts with systemd unit or dropin')
      }
      for (const owner of ['user', 'group'] as const) {
        if (node[owner]?.id !== undefined && node[owner]?.name !== undefined && node[owner]?.name !== '') {
          report('error', [...path, owner], 'cannot set both id and name')
        }
      }
      if ('mode' in node) checkMode(node.mode, [...path, 'mode'], version, report)
    }
  }
  checkFiles(config, report)
  for (const [index, link] of (storage.links ?? []).entries()) {
    const path = ['storage', 'links', index]
    const missing = version < '3.3.0' ? link.target === undefined : !link.target
    if (missing) report('error', [...path, 'target'], 'link target is required')
    if (link.hard !== true) continue
    if (storage.directories?.some((directory) => directory.path === link.target)) {
      report('error', path, 'hard link target is a directory')
    }
    for (const owner of ['user', 'group'] as const) {
      const field = link[owner]?.id !== undefined ? 'id' : link[owner]?.name ? 'name' : undefined
      if (field) report('warning', [...path, owner, field], 'user/group ignored for hard link')
    }
  }
}

function checkMode(mode: number | undefined, path: IgnitionPath, version: string, report: Report): void {
  if (mode === undefined) return
  if (mode < 0 || mode > 0o7777) report('error', path, 'illegal file mode')
  else if (mode > 0o777 && version < '3.6.0') {
    const text = 'setuid/setgid/sticky bits are not supported or functional in spec versions older than 3.6.0'
    report('warning', path, text)
  }
}

function checkFiles(config: IgnitionConfig, report: Report): void {
  const { version } = config.ignition
  for (const [index, file] of (config.storage?.files ?? []).entries()) {
    const path = ['storage', 'files', index]
    if (file.overwrite === true && file.contents?.source === undefined) {
      const text = 'overwrite must be false if source is unspecified'
      report('error', [...path, 'overwrite'], text)
    }
    if (file.contents) {
      checkResource(file.contents, { path: [...path, 'contents'], version, required: false, report })
    }
    for (const [at, resource] of (file.append ?? []).entries()) {
      checkResource(resource, { path: [...path, 'append', at], version, required: false, report })
    }
  }
}

function pathsOfUnits(config: IgnitionConfig): Set<string> {
  const paths = new Set<string>()
  for (const unit of config.systemd?.units ?? []) {
    if (unit.contents) paths.add(`/etc/systemd/system/${unit.name}`)
    for (const dropin of unit.dropins ?? []) {
      if (dropin.contents) paths.add(`/etc/systemd/system/${unit.name}.d/${dropin.name}`)
    }
  }
  return paths
}

function checkUnits(config: IgnitionConfig, report: Report): void {
  const units = config.systemd?.units ?? []
  for (const [index, unit] of units.entries()) {
    const path = ['systemd', 'units', index]
    const extension = parseUnitName(unit.name).extension
    if (!(unitExtensions as readonly string[]).includes(extension) || unit.name.includes('/')) {
      report('error', [...path, 'name'], 'invalid systemd unit extension')
    }
    const parsed = parseUnit(unit.contents ?? '')
    if (!parsed.ok) report('error', [...path, 'contents'], `invalid unit content: ${parsed.reason}`)
    else if (unit.enabled === true && unit.contents && !parsed.sections.includes('Install')) {
      const text = `unit "${unit.name}" is enabled, but has no install section so enable does nothing`
      report('warning', [...path, 'contents'], text)
    } else if (unit.enabled === true && !unit.contents) {
      const template = units.find((other) => other.name === templateOf(unit.name))
      const body = parseUnit(template?.contents ?? '')
      if (template?.contents && body.ok && !body.sections.includes('Install')) {
        const text = `template unit "${template.name}" for "${unit.name}" doesn't have Install section`
        report('warning', [...path, 'contents'], text)
      }
    }
    for (const [at, dropin] of (unit.dropins ?? []).entries()) {
      const dropinPath = [...path, 'dropins', at]
      if (!dropin.name.endsWith('.conf') || dropin.name.includes('/')) {
        report('error', [...dropinPath, 'name'], 'invalid systemd drop-in extension')
      }
      const body = parseUnit(dropin.contents ?? '')
      if (!body.ok) report('error', [...dropinPath, 'contents'], `invalid unit content: ${body.reason}`)
    }
  }
}
