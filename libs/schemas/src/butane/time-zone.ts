/** Rules are written out for these years; the zones' rules beyond are anybody's guess. */
const years = { first: 2000, last: 2050 }
const daySeconds = 86_400

type Local = { offsetSeconds: number; name: string; summer: boolean }

/** The name of a zone as ICU knows it. */
export function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en-US', { timeZone: name })
    return /^[A-Za-z]/.test(name)
  } catch {
    return false
  }
}

/**
 * A zone's rules as a file of tzfile(5) (RFC 9636, version 1), for images that bring no database of zones: the C
 * library reads it from /etc/localtime.
 */
export function timeZoneFile(zone: string): Uint8Array {
  const { first, changes } = changesOf(zone)
  const kinds: Local[] = []
  const kindOf = (local: Local): number => {
    const found = kinds.findIndex(
      (kind) => kind.offsetSeconds === local.offsetSeconds && kind.name === local.name,
    )
    return found >= 0 ? found : kinds.push(local) - 1
  }
  kindOf(first)
  // Times are 32 bits wide, which ends in 2038.
  const kept = changes.filter(({ at }) => at < 2 ** 31).map(({ at, to }) => ({ at, kind: kindOf(to) }))
  const names = [...new Set(kinds.map(({ name }) => name))]
  const nameText = names.map((name) => `${name}\0`).join('')
  const header = Buffer.alloc(44)
  header.write('TZif', 0, 'ascii')
  for (const [index, count] of [0, 0, 0, kept.length, kinds.length, nameText.length].entries()) {
    header.writeUInt32BE(count, 20 + 4 * index)
  }
  const times = Buffer.alloc(kept.length * 5)
  for (const [index, { at, kind }] of kept.entries()) {
    times.writeInt32BE(at, index * 4)
    times.writeUInt8(kind, kept.length * 4 + index)
  }
  const types = Buffer.alloc(kinds.length * 6)
  for (const [index, { offsetSeconds, summer, name }] of kinds.entries()) {
    types.writeInt32BE(offsetSeconds, index * 6)
    types.writeUInt8(summer ? 1 : 0, index * 6 + 4)
    const before = names.slice(0, names.indexOf(name)).reduce((sum, each) => sum + each.length + 1, 0)
    types.writeUInt8(before, index * 6 + 5)
  }
  return Buffer.concat([header, times, types, Buffer.from(nameText, 'ascii')])
}

/** When the clocks change, to the second, found by looking at each day's end and halving. */
function changesOf(zone: string): { first: Local; changes: { at: number; to: Local }[] } {
  const look = localTime(zone)
  const start = Date.UTC(years.first, 0, 1) / 1000
  const end = Date.UTC(years.last, 0, 1) / 1000
  const first = look(start)
  const changes: { at: number; to: Local }[] = []
  let before = first
  // A week is shorter than what lies between any two changes.
  for (let day = start; day < end; day += 7 * daySeconds) {
    const after = look(day + 7 * daySeconds)
    if (after.offsetSeconds === before.offsetSeconds) continue
    let low = day
    let high = day + 7 * daySeconds
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2)
      if (look(middle).offsetSeconds === before.offsetSeconds) low = middle
      else high = middle
    }
    changes.push({ at: high, to: after })
    before = after
  }
  return { first, changes }
}

/** The offset at a time, and its name: ICU's where it has one of letters, else the offset in digits. */
function localTime(zone: string): (seconds: number) => Local {
  const format = (name: 'longOffset' | 'short') =>
    new Intl.DateTimeFormat('en-US', { timeZone: zone, timeZoneName: name })
  const [offsets, names] = [format('longOffset'), format('short')]
  const part = (formatter: Intl.DateTimeFormat, seconds: number): string =>
    formatter.formatToParts(seconds * 1000).find(({ type }) => type === 'timeZoneName')?.value ?? ''
  const standard = standardOffset(part, offsets)
  return (seconds) => {
    const offsetSeconds = parseOffset(part(offsets, seconds))
    const name = part(names, seconds)
    const sign = offsetSeconds < 0 ? '-' : '+'
    const minutes = Math.abs(offsetSeconds) / 60
    const digits = `${sign}${two(Math.floor(minutes / 60))}${minutes % 60 === 0 ? '' : two(minutes % 60)}`
    return {
      offsetSeconds,
      name: /^[A-Z]{3,5}$/.test(name) ? name : digits,
      summer: offsetSeconds > standard,
    }
  }
}

/** The smaller of the offsets of winter and summer in a recent year. */
function standardOffset(
  part: (formatter: Intl.DateTimeFormat, seconds: number) => string,
  offsets: Intl.DateTimeFormat,
): number {
  const of = (month: number): number => parseOffset(part(offsets, Date.UTC(2024, month, 1) / 1000))
  return Math.min(of(0), of(6))
}

/** `GMT+05:30` in seconds. */
function parseOffset(text: string): number {
  const match = /^GMT(?:([+-])(\d{2}):(\d{2})(?::(\d{2}))?)?$/.exec(text)
  const [, sign, hours = '0', minutes = '0', seconds = '0'] = match ?? []
  const total = Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)
  return sign === '-' ? -total : total
}

const two = (value: number): string => String(Math.floor(value)).padStart(2, '0')
