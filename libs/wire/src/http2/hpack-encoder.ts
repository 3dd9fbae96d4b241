import { writeInteger, writeString } from './hpack-primitives.ts'
import type { OutBuffer } from './out-buffer.ts'

/** Header names and values to send, in order; `:status` first in a response head. Values are latin-1. */
export type Fields = readonly (readonly [name: string, value: string])[]

/** Writes header blocks, in the order in which they are sent. */
export type HeaderEncoder = {
  /** The peer's SETTINGS_HEADER_TABLE_SIZE. */
  setTableSize(bytes: number): void
  encode(out: OutBuffer, fields: Fields): void
}

/** The head of every gRPC answer, and the trailers of those that went well: known to the encoder by identity. */
export const grpcHead: Fields = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
]
export const grpcOkTrailers: Fields = [['grpc-status', '0']]

const indexedStatus200 = 0x88
const indexStatus = 8
const indexContentType = 31
/** Section 4.1: the two entries we ever put into the peer's table. */
const ourEntriesBytes = 12 + 16 + 32 + (11 + 1 + 32)
const tableBytesDefault = 4096
const absent = -1

/**
 * The sending half of HPACK for one connection of a server. It puts two fields into the peer's table, so that the head and trailers of
 * a usual gRPC answer are two bytes and one; everything else goes as it is.
 */
export class HpackEncoder implements HeaderEncoder {
  private tableBytesMax = tableBytesDefault
  private sizeUpdate = false
  private inserted = 0
  /** How many entries had been inserted before this one, if it is in the table. */
  private contentType = absent
  private okStatus = absent

  setTableSize(bytes: number): void {
    const sizeMax = Math.min(bytes, tableBytesDefault)
    if (sizeMax === this.tableBytesMax) return
    this.tableBytesMax = sizeMax
    this.sizeUpdate = true
    this.contentType = absent
    this.okStatus = absent
  }

  encode(out: OutBuffer, fields: Fields): void {
    if (this.sizeUpdate) this.writeSizeUpdate(out)
    if (fields === grpcHead) this.grpcHead(out)
    else if (fields === grpcOkTrailers) this.grpcOk(out)
    else {
      for (const [name, value] of fields) {
        if (name === ':status' && value === '200') out.byte(indexedStatus200)
        else if (name === ':status') {
          out.byte(indexStatus)
          writeString(out, value)
        } else {
          out.byte(0)
          writeString(out, name)
          writeString(out, value)
        }
      }
    }
  }

  /** Section 4.2. Through zero, so that the table is empty and our idea of it right, whatever changes came in between. */
  private writeSizeUpdate(out: OutBuffer): void {
    out.byte(0x20)
    writeInteger(out, 5, 0x20, this.tableBytesMax)
    this.sizeUpdate = false
  }

  private grpcHead(out: OutBuffer): void {
    out.byte(indexedStatus200)
    if (this.contentType !== absent) {
      out.byte(0x80 | (61 + this.inserted - this.contentType))
      return
    }
    const keep = this.tableBytesMax >= ourEntriesBytes
    writeInteger(out, keep ? 6 : 4, keep ? 0x40 : 0, indexContentType)
    writeString(out, 'application/grpc')
    if (keep) this.contentType = this.inserted++
  }

  private grpcOk(out: OutBuffer): void {
    if (this.okStatus !== absent) {
      out.byte(0x80 | (61 + this.inserted - this.okStatus))
      return
    }
    const keep = this.tableBytesMax >= ourEntriesBytes
    out.byte(keep ? 0x40 : 0)
    writeString(out, 'grpc-status')
    writeString(out, '0')
    if (keep) this.okStatus = this.inserted++
  }
}
