import type { ImageEntry } from './image-service.ts'

export const imageFields = [
  'id',
  'name',
  'size',
  'imported',
  'used',
  'layers',
  'pods',
  'signed',
  'digest',
  'config',
] as const
export type ImageField = (typeof imageFields)[number]

export type TableOptions = {
  fields: ImageField[]
  sort: ImageField[]
  descending: boolean
  /** Digests in full length and times as they are. */
  full: boolean
  legend: boolean
  nowMs: number
}

/** Images in the order that is asked for; those that are equal in it are ordered by name. */
export function sortImages(
  images: ImageEntry[],
  { sort, descending }: Pick<TableOptions, 'sort' | 'descending'>,
): ImageEntry[] {
  const keys: ImageField[] = [...sort, 'name']
  const compare = (a: ImageEntry, b: ImageEntry): number => {
    for (const field of keys) {
      const [left, right] = [sortKey(a, field), sortKey(b, field)]
      if (left !== right) return left < right ? -1 : 1
    }
    return 0
  }
  const sorted = [...images].sort(compare)
  return descending ? sorted.reverse() : sorted
}

/** One line for each image, and one above them with the names of the columns. */
export function imageTable(images: ImageEntry[], options: TableOptions): string[] {
  const rows = sortImages(images, options).map((image) =>
    options.fields.map((field) => cell(image, field, options)),
  )
  if (options.legend) rows.unshift(options.fields.map((field) => field.toUpperCase()))
  return alignColumns(rows)
}

export function alignColumns(rows: string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  )
}

function sortKey(image: ImageEntry, field: ImageField): string | number {
  switch (field) {
    case 'id':
    case 'digest':
      return image.digest
    case 'config':
      return image.configDigest
    case 'name':
      return image.reference
    case 'size':
      return image.sizeBytes
    case 'imported':
      return Date.parse(image.importedAt)
    case 'used':
      return Date.parse(image.lastUsedAt)
    case 'layers':
      return image.layers
    case 'pods':
      return image.usedBy.length
    case 'signed':
      return image.signedBy[0] ?? ''
  }
}

function cell(image: ImageEntry, field: ImageField, { full, nowMs }: TableOptions): string {
  const digest = (text: string): string => (full ? text : text.slice(7, 19))
  const time = (text: string): string => (full ? text : `${agoText(nowMs - Date.parse(text))} ago`)
  switch (field) {
    case 'id':
      return digest(image.digest)
    case 'digest':
      return image.digest
    case 'config':
      return digest(image.configDigest)
    case 'name':
      return image.reference
    case 'size':
      return full ? String(image.sizeBytes) : sizeText(image.sizeBytes)
    case 'imported':
      return time(image.importedAt)
    case 'used':
      return time(image.lastUsedAt)
    case 'layers':
      return String(image.layers)
    case 'pods':
      return image.usedBy.join(',') || '-'
    case 'signed':
      return image.insecure ? 'insecure' : image.signedBy.map(digest).join(',') || '-'
  }
}

/** Binary units, one digit behind the point. */
export function sizeText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let at = 0
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024
  return at === 0 ? `${bytes} B` : `${value.toFixed(1)} ${units[at]}`
}

function agoText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  const steps: [string, number][] = [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
  ]
  for (const [unit, length] of steps) if (seconds >= length) return `${Math.floor(seconds / length)}${unit}`
  return `${seconds}s`
}

/** `90s`, `30m`, `1h30m`, `2d`, `0`; undefined for anything else. */
export function durationMs(text: string): number | undefined {
  if (text === '0') return 0
  const unitsMs: Record<string, number> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000 }
  if (!/^(\d{1,6}[dhms])+$/.test(text)) return undefined
  return [...text.matchAll(/(\d+)([dhms])/g)].reduce(
    (sum, [, count, unit]) => sum + Number(count) * unitsMs[unit!]!,
    0,
  )
}
