import { parseUnitName, unitExtensions } from '@kiln/units'
import type { IgnitionConfig, IgnitionResource, IgnitionUnit } from './ignition.ts'
import { checkDisks, checkFilesystems } from './ignition-check-disks.ts'
import { checkResource, isParsable, sourceProblem } from './ignition-check-resource.ts'
import { checkDuplicates } from './ignition-duplicates.ts'
import { type IgnitionFinding, type IgnitionPath, pathProblem, type Report } from './ignition-finding.ts'
import { readUnitContents } from './ignition-unit-contents.ts'

/** The rules a config must keep beyond its shape (Ignition configuration specification), all findings at once. */
export function checkIgnition(config: IgnitionConfig): IgnitionFinding[] {
  const findings: IgnitionFinding[] = []
  const report: Report = (severity, path, message) => findings.push({ severity, path, message })
  const version = config.ignition.version
  checkDuplicates(config, [], report)
  const { merge, replace } = config.ignition.config ?? {}
  for (const [index, resource] of (merge ?? []).entries()) {
    const path = ['ignition', 'config', 'merge', index]
    checkReference(resource, path, version, report)
  }
  if (replace) {
    const path = ['ignition', 'config', 'replace']
    checkResource(replace, { path, version, required: false, unverified: version < '3.1.0', report })
  }
  const authorities = config.ignition.security?.tls?.certificateAuthorities ?? []
  for (const [index, resource] of authorities.entries()) {
    const path = ['ignition', 'security', 'tls', 'certificateAuthorities', index]
    if (version < '3.1.0' && !resource.source) report('error', [...path, 'source'], 'invalid url scheme')
    checkReference(resource, path, version, report)
  }
  checkProxy(config, report)
  checkDisks(config, report)
  checkFilesystems(config, report)
  checkNodes(config, report)
  checkUnits(config, report)
  return findings
}

/** A config or a CA that is named by its source, which 3.0 did not require. */
function checkReference(
  resource: IgnitionResource,
  path: IgnitionPath,
  version: string,
  report: Report,
): void {
  const required = version >= '3.1.0'
  const problem = required && resource.source ? sourceProblem(resource.source, version) : undefined
  if (problem) report('error', path, problem)
  checkResource(resource, { path, version, required, unverified: !required, report })
}

function checkProxy(config: IgnitionConfig, report: Report): void {
  for (const name of ['httpProxy', 'httpsProxy'] as const) {
    const value = config.ignition.proxy?.[name]
    if (value === undefined) continue
    const scheme = /^[a-z][a-z0-9+.-]*:/i.exec(value)?.[0].toLowerCase()
    const path = ['ignition', 'proxy', name]
    if (!isParsable(value)) report('error', path, 'unable to parse url')
    else if (scheme !== 'http:' && scheme !== 'https:') report('error', path, 'proxies must be http(s)')
    else if (name === 'httpsProxy' && scheme === 'http:') {
      report('warning', path, 'insecure HTTP proxy specified for HTTPS')
    }
  }
}

function checkNodes(config: IgnitionConfig, report: Report): void {
  const { version } = config.ignition
  const storage = config.storage ?? {}
  const links = new Map<string, number>()
  for (const { path } of storage.links ?? []) if (path !== '/') links.set(path, (links.get(path) ?? 0) + 1)
  const directories = new Set((storage.directories ?? []).map(({ path }) => path))
  const unitPaths = pathsOfUnits(config)
  for (const list of ['files', 'directories', 'links'] as const) {
    for (const [index, node] of (storage[list] ?? []).entries()) {
      const path = ['storage', list, index]
      const problem = pathProblem(node.path)
      if (problem) report('error', [...path, 'path'], problem)
      // One finding for each link above it.
      const noun = list === 'directories' ? 'directory' : list.slice(0, -1)
      for (let above = linksAbove(node.path, links); above > 0; above--) {
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
    if (version >= '3.3.0' && !link.target) {
      report('error', [...path, 'target'], 'link target is required')
      continue
    }
    if (link.hard !== true) continue
    const target = absoluteTarget(link.path, link.target ?? '')
    if (directories.has(target)) {
      report('error', path, 'hard link target is a directory')
    }
    for (const owner of ['user', 'group'] as const) {
      for (const field of ['id', 'name'] as const) {
        if (link[owner]?.[field] === undefined) continue
        report('warning', [...path, owner, field], 'user/group ignored for hard link')
      }
    }
  }
}

/** Where a hard link points to: its target without detours, seen from the path of the link itself. */
function absoluteTarget(path: string, target: string): string {
  const parts: string[] = []
  // What is seen from a path that is not absolute is not either.
  if (!target.startsWith('/') && !path.startsWith('/')) return `${path}/${target}`
  for (const part of (target.startsWith('/') ? target : `${path}/${target}`).split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return `/${parts.join('/')}`
}

function checkMode(mode: number | undefined, path: IgnitionPath, version: string, report: Report): void {
  if (mode === undefined) return
  if (mode < 0 || mode > 0o7777) report('error', path, 'illegal file mode')
  if ((mode & 0o7000) !== 0 && version < '3.6.0') {
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

/** How many links are at a path's folders. */
function linksAbove(path: string, links: ReadonlyMap<string, number>): number {
  let count = 0
  for (let at = path.indexOf('/'); at >= 0 && links.size > 0; at = path.indexOf('/', at + 1))
    count += links.get(path.slice(0, at)) ?? 0
  return count
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
  const missing = templatesWithoutInstall(units)
  for (const [index, unit] of units.entries()) {
    const path = ['systemd', 'units', index]
    const extension = parseUnitName(unit.name).extension
    if (!(unitExtensions as readonly string[]).includes(extension)) {
      report('error', [...path, 'name'], 'invalid systemd unit extension')
    }
    const parsed = readUnitContents(unit.contents ?? '')
    if (!parsed.ok) report('error', [...path, 'contents'], `invalid unit content: ${parsed.reason}`)
    else if (unit.enabled === true && unit.contents && !parsed.sections.has('Install')) {
      const text = `unit "${unit.name}" is enabled, but has no install section so enable does nothing`
      report('warning', [...path, 'contents'], text)
    }
    // An instance is enabled by its template, whatever contents of its own it has; services alone are told of.
    const stem = unit.enabled === true ? /^(.+?)@.+\.service$/.exec(unit.name)?.[1] : undefined
    const template = `${stem}@.service`
    if (stem !== undefined && missing.has(template)) {
      const text = `template unit "${template}" for "${unit.name}" doesn't have Install section`
      report('warning', [...path, 'contents'], text)
    }
    for (const [at, dropin] of (unit.dropins ?? []).entries()) {
      const dropinPath = [...path, 'dropins', at]
      if (!dropin.name.endsWith('.conf')) {
        report('error', [...dropinPath, 'name'], 'invalid systemd drop-in extension')
      }
      const body = readUnitContents(dropin.contents ?? '')
      if (!body.ok) report('error', [...dropinPath, 'contents'], `invalid unit content: ${body.reason}`)
    }
  }
}

/** Names of templates that have contents, and no [Install] in them; of two of a name the last counts. */
function templatesWithoutInstall(units: readonly IgnitionUnit[]): Set<string> {
  const names = new Set<string>()
  for (const { name, contents } of units) {
    if (!name.endsWith('@.service')) continue
    const body = readUnitContents(contents ?? '')
    if (contents && body.ok && !body.sections.has('Install')) names.add(name)
    else names.delete(name)
  }
  return names
}
