/** What the specification's parser of unit files makes of a text. */
export type UnitContents = { ok: true; sections: Set<string> } | { ok: false; reason: string }

/** Bytes of a line in the reference's parser; of an option those behind the equals sign. */
const lineBytesMax = 2048
const tooLong = { ok: false, reason: `line too long (max ${lineBytesMax} bytes)` } as const
const isTooLong = (line: string): boolean => Buffer.byteLength(line) > lineBytesMax

/**
 * Reads a unit as the reference's checks do, which differs from systemd in places: text before the first section does
 * not count, a comment ends a continued value, and is continued itself. `sections` are those with an option.
 */
export function readUnitContents(text: string): UnitContents {
  const sections = new Set<string>()
  let section: string | undefined
  let at = 0
  const restOfLine = (): string => {
    const end = text.indexOf('\n', at)
    const line = text.slice(at, end < 0 ? text.length : end)
    at = end < 0 ? text.length : end + 1
    return line
  }
  while (at < text.length) {
    const first = text[at]!
    if (first === '#' || first === ';') {
      let line: string
      do {
        line = restOfLine()
        if (isTooLong(line)) return tooLong
      } while (line.replace(/ $/, '').endsWith('\\') && at < text.length)
    } else if (first === '[') {
      const end = text.indexOf(']', at)
      if (end < 0) return { ok: false, reason: 'unable to find end of section' }
      section = text.slice(at + 1, end)
      at = end + 1
      const garbage = restOfLine().trim()
      if (garbage !== '') {
        return { ok: false, reason: `found garbage after section name ${section}: ${garbage}` }
      }
    } else if (section === undefined || first.trim() === '') at++
    else {
      let line = restOfLine()
      if (!line.includes('=')) {
        return { ok: false, reason: 'unexpected newline encountered while parsing option name' }
      }
      sections.add(section)
      line = line.slice(line.indexOf('=') + 1)
      while (!isTooLong(line) && line.endsWith('\\') && at < text.length) line = restOfLine()
      if (isTooLong(line)) return tooLong
    }
  }
  return { ok: true, sections }
}
