import { openDatabase } from '@kiln/bbolt'
import { crc32c, parseRevisionKey } from '@kiln/mvcc'
import type { SnapshotFile } from './snapshot-file.ts'

/** What `etcdutl snapshot status` tells of a file. */
export type SnapshotStatus = { hash: number; revision: number; totalKey: number; totalSize: number }

/** Reads all of the file; the hash is a CRC-32C over the names of the buckets and everything in them. */
export async function snapshotStatus(file: SnapshotFile): Promise<SnapshotStatus> {
  const database = await openDatabase(file)
  const status = { hash: 0, revision: 0, totalKey: 0, totalSize: database.sizeBytes }
  for (const bucket of await database.buckets()) {
    status.hash = crc32c(bucket.name, status.hash)
    const isKeys = bucket.name.toString() === 'key'
    for await (const { key, value } of bucket.entries()) {
      status.hash = crc32c(value, crc32c(key, status.hash))
      status.totalKey++
      if (isKeys) status.revision = parseRevisionKey(key)?.revision ?? status.revision
    }
  }
  return status
}

/** As etcdutl prints it: `simple` (a line), `table` or `json`. */
export function formatStatus(status: SnapshotStatus, format: 'simple' | 'table' | 'json'): string {
  if (format === 'json') return JSON.stringify(status)
  const cells = [
    status.hash.toString(16),
    String(status.revision),
    String(status.totalKey),
    humanBytes(status.totalSize),
  ]
  if (format === 'simple') return cells.join(', ')
  const names = ['HASH', 'REVISION', 'TOTAL KEYS', 'TOTAL SIZE']
  const widths = names.map((name, at) => Math.max(name.length, cells[at]!.length))
  const rule = `+${widths.map((width) => '-'.repeat(width + 2)).join('+')}+`
  const centre = (text: string, width: number): string =>
    text.padStart(text.length + Math.floor((width - text.length) / 2)).padEnd(width)
  const row = (texts: string[]): string => `| ${texts.join(' | ')} |`
  return [
    rule,
    row(names.map((name, at) => centre(name, widths[at]!))),
    rule,
    row(cells.map((cell, at) => cell.padStart(widths[at]!))),
    rule,
  ].join('\n')
}

/** Bytes as etcdutl writes them: powers of 1000, one decimal below ten. */
export function humanBytes(bytes: number): string {
  if (bytes < 10) return `${bytes} B`
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  const power = Math.min(units.length - 1, Math.floor(Math.log(bytes) / Math.log(1000) + 1e-9))
  const value = Math.floor((bytes / 1000 ** power) * 10 + 0.5) / 10
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ${units[power]}`
}
