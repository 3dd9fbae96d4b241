export type UnitEntry = { section: string; key: string; value: string }

export type ParsedUnit =
  | { ok: true; sections: string[]; entries: UnitEntry[] }
  | { ok: false; reason: string }

/** The longest line systemd reads (LONG_LINE_MAX). */
const lineMax = 1 << 20

/** Reads a unit file (systemd.syntax(7)): sections, assignments, continuation lines, comments. */
export function parseUnit(text: string): ParsedUnit {
  const sections: string[] = []
  const entries: UnitEntry[] = []
  const lines = text.split('\n')
  for (let number = 0; number < lines.length; number++) {
    const line = lines[number]!.trim()
    if (line.length > lineMax) return { ok: false, reason: 'line too long' }
    if (line === '' || line.startsWith('#') || line.startsWith(';')) continue
    if (line.startsWith('[')) {
      const end = line.indexOf(']')
      if (end < 0) return { ok: false, reason: 'unable to find end of section' }
      if (line.slice(end + 1).trim() !== '') {
        return { ok: false, reason: `found garbage after section name ${line.slice(1, end)}` }
      }
      sections.push(line.slice(1, end))
      continue
    }
    const section = sections.at(-1)
    if (section === undefined) return { ok: false, reason: 'missing section header' }
    const equals = line.indexOf('=')
    if (equals < 0) return { ok: false, reason: `line ${number + 1} is not an assignment` }
    let value = line.slice(equals + 1).trim()
    while (value.endsWith('\\') && number + 1 < lines.length) {
      const next = lines[++number]!
      const comment = /^\s*[#;]/.test(next)
      value = comment ? value : `${value.slice(0, -1).trimEnd()} ${next.trim()}`
    }
    entries.push({ section, key: line.slice(0, equals).trim(), value })
  }
  return { ok: true, sections, entries }
}

/** What `[Install]` asks for (systemd.unit(5)); an empty assignment resets a list. */
export type InstallSection = {
  wantedBy: string[]
  requiredBy: string[]
  upheldBy: string[]
  alias: string[]
  also: string[]
  defaultInstance: string | undefined
}

/** The `[Install]` section over a unit and its drop-ins, in their order; undefined when none has one. */
export function installSection(texts: string[]): InstallSection | undefined {
  const install: InstallSection = {
    wantedBy: [],
    requiredBy: [],
    upheldBy: [],
    alias: [],
    also: [],
    defaultInstance: undefined,
  }
  let found = false
  for (const text of texts) {
    const unit = parseUnit(text)
    if (!unit.ok) continue
    for (const { section, key, value } of unit.entries) {
      if (section !== 'Install') continue
      found = true
      if (key === 'DefaultInstance') install.defaultInstance = value
      const list = listOf(install, key)
      if (!list) continue
      if (value === '') list.length = 0
      else list.push(...value.split(/\s+/))
    }
  }
  return found ? install : undefined
}

function listOf(install: InstallSection, key: string): string[] | undefined {
  switch (key) {
    case 'WantedBy':
      return install.wantedBy
    case 'RequiredBy':
      return install.requiredBy
    case 'UpheldBy':
      return install.upheldBy
    case 'Alias':
      return install.alias
    case 'Also':
      return install.also
    default:
      return undefined
  }
}
