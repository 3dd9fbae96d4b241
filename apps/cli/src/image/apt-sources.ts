/**
 * Where this host gets its Debian packages from, turned into sources for the image's suite. The mirror is never
 * named in the repository: whatever the host uses, including its keyring and options, is used.
 */

export type AptSource = { uri: string; suite: string; components: string[]; options: Record<string, string> }

/** Debian releases whose mirrors also carry the image's suite. */
const releases = new Set(['bullseye', 'bookworm', 'trixie', 'forky', 'sid', 'stable', 'testing', 'unstable'])

/** Reads a deb822 file (`*.sources`), sources.list(5). */
export function parseDeb822(text: string): AptSource[] {
  const sources: AptSource[] = []
  for (const stanza of text.replace(/^#.*\n?/gm, '').split(/\n\s*\n/)) {
    const fields = new Map<string, string>()
    let last = ''
    for (const line of stanza.split('\n')) {
      const field = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line)
      if (field) {
        last = field[1]!.toLowerCase()
        fields.set(last, field[2]!)
      } else if (/^\s+\S/.test(line) && last) fields.set(last, `${fields.get(last)}\n${line}`)
    }
    const words = (name: string): string[] => fields.get(name)?.split(/\s+/).filter(Boolean) ?? []
    if (!words('types').includes('deb') || fields.get('enabled')?.trim() === 'no') continue
    const options: Record<string, string> = {}
    for (const name of ['signed-by', 'trusted', 'check-valid-until']) {
      const value = fields.get(name)
      if (value !== undefined) options[name] = value
    }
    for (const uri of words('uris'))
      for (const suite of words('suites'))
        sources.push({ uri, suite, components: words('components'), options })
  }
  return sources
}

/** Reads a one-line file (`*.list`), sources.list(5). */
export function parseOneLine(text: string): AptSource[] {
  const sources: AptSource[] = []
  for (const line of text.split('\n')) {
    const match = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$/.exec(line.replace(/\s#.*$/, '').trim())
    if (!match) continue
    const options: Record<string, string> = {}
    for (const word of match[1]?.split(/\s+/).filter(Boolean) ?? []) {
      const [name = '', value = ''] = word.split('=')
      options[name.toLowerCase()] = value
    }
    sources.push({
      uri: match[2]!,
      suite: match[3]!,
      components: match[4]!.split(/\s+/).filter(Boolean),
      options,
    })
  }
  return sources
}

/** The host's Debian sources, pointed at `suite`; those of other makers fall away. */
export function sourcesForSuite(sources: readonly AptSource[], suite: string): AptSource[] {
  const chosen = new Map<string, AptSource>()
  for (const source of sources) {
    const [release = '', ...rest] = source.suite.split(/(?=[-/])/)
    if (!releases.has(release) || !source.components.includes('main')) continue
    const target = suite + rest.join('')
    if (target !== suite && !/^[-/](updates|security)$/.test(rest.join(''))) continue
    const uri = source.uri.replace(/\/+$/, '')
    chosen.set(`${uri} ${target}`, { ...source, uri, suite: target, components: ['main'] })
  }
  return [...chosen.values()]
}

export function formatDeb822(sources: readonly AptSource[]): string {
  return sources
    .map((source) => {
      const options = Object.entries(source.options).map(([name, value]) => `${name}: ${value}\n`)
      return `Types: deb\nURIs: ${source.uri}\nSuites: ${source.suite}\nComponents: ${source.components.join(' ')}\n${options.join('')}`
    })
    .join('\n')
}
