import type { Fields, HeaderEncoder } from './hpack-encoder.ts'
import { writeInteger, writeString } from './hpack-primitives.ts'
import { fieldSize, headerField, staticTable } from './hpack-table.ts'
import type { OutBuffer } from './out-buffer.ts'

const tableBytesDefault = 4096
const staticEntries = staticTable.length
/** Blocks remembered at most. */
const blocksMax = 256

/** Differ from call to call, so that a place in the table would be lost on them. */
const changing = new Set(['grpc-timeout'])
/** Nobody on the way may keep these in a table (section 7.1.3). */
const secret = new Set(['authorization', 'token'])

const staticFields = new Map<string, number>()
const staticNames = new Map<string, number>()
for (const [at, { name, value }] of staticTable.entries()) {
  if (value !== '') staticFields.set(keyOf(name, value), at + 1)
  if (!staticNames.has(name)) staticNames.set(name, at + 1)
}

/**
 * The sending half of HPACK for one connection of a client (RFC 7541). Fields go into the peer's table while it has room and stay
 * there, nothing is ever evicted; so the heads of the usual calls soon are a few bytes each, always the same, and are written from
 * memory.
 */
export class RequestEncoder implements HeaderEncoder {
  private tableBytesMax = tableBytesDefault
  private sizeUpdate = false
  private tableBytes = 0
  /** How many entries had been inserted before this one. */
  private entries = new Map<string, number>()
  private blocks = new Map<Fields, Buffer>()

  setTableSize(bytes: number): void {
    const sizeMax = Math.min(bytes, tableBytesDefault)
    if (sizeMax === this.tableBytesMax) return
    this.tableBytesMax = sizeMax
    this.sizeUpdate = true
    this.forget()
  }

  /** The same array again is written faster; never change one. */
  encode(out: OutBuffer, fields: Fields): void {
    if (this.sizeUpdate) {
      // Through zero, so that the table is empty whatever changes came in between (section 4.2).
      out.byte(0x20)
      writeInteger(out, 5, 0x20, this.tableBytesMax)
      this.sizeUpdate = false
    }
    const known = this.blocks.get(fields)
    if (known !== undefined) {
      out.append(known)
      return
    }
    const start = out.length
    const inserted = this.entries.size
    for (const [name, value] of fields) this.field(out, name, value)
    // Places in the table count from its newest entry: blocks written before are no longer right.
    if (this.entries.size !== inserted) this.blocks.clear()
    else {
      if (this.blocks.size >= blocksMax) this.blocks.clear()
      this.blocks.set(fields, Buffer.from(out.bytes.subarray(start, out.length)))
    }
  }

  private forget(): void {
    this.tableBytes = 0
    this.entries = new Map()
    this.blocks.clear()
  }

  private field(out: OutBuffer, name: string, value: string): void {
    const key = keyOf(name, value)
    const fixed = staticFields.get(key)
    const inserted = this.entries.get(key)
    if (fixed !== undefined) writeInteger(out, 7, 0x80, fixed)
    else if (inserted !== undefined) writeInteger(out, 7, 0x80, staticEntries + this.entries.size - inserted)
    else if (secret.has(name)) this.literal(out, 4, 0x10, name, value)
    else if (changing.has(name) || !this.keep(key, name, value)) this.literal(out, 4, 0, name, value)
    else this.literal(out, 6, 0x40, name, value)
  }

  /** Makes an entry if there is room. */
  private keep(key: string, name: string, value: string): boolean {
    const bytes = fieldSize(headerField(name, value))
    if (this.tableBytes + bytes > this.tableBytesMax) return false
    this.tableBytes += bytes
    this.entries.set(key, this.entries.size)
    return true
  }

  private literal(out: OutBuffer, prefixBits: number, first: number, name: string, value: string): void {
    const index = staticNames.get(name)
    writeInteger(out, prefixBits, first, index ?? 0)
    if (index === undefined) writeString(out, name)
    writeString(out, value)
  }
}

function keyOf(name: string, value: string): string {
  return `${name}\0${value}`
}
