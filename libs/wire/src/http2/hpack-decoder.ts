import { ConnectionError, errorCode } from './frames.ts'
import { DynamicTable, fieldSize, type HeaderField, headerField, staticTable } from './hpack-table.ts'
import { decodeHuffman } from './huffman.ts'

/** Larger integers have no honest use in a header block. */
const integerMax = 2 ** 28

function compressionError(message: string): ConnectionError {
  return new ConnectionError(errorCode.compressionError, message)
}

/** What a header block held; `tooLarge` if the list went over the limit, when only the first fields are there. */
export type DecodedFields = { fields: HeaderField[]; tooLarge: boolean }

/** The receiving half of HPACK for one connection (RFC 7541). */
export class HpackDecoder {
  private readonly table: DynamicTable
  private readonly tableBytesMax: number
  private at = 0
  private end = 0
  private block: Buffer = Buffer.alloc(0)
  /** Counts changes of the table: a block decodes the same again while this stays. */
  changes = 0

  constructor(tableBytesMax = 4096) {
    this.tableBytesMax = tableBytesMax
    this.table = new DynamicTable(tableBytesMax)
  }

  /** Decodes a whole header block. Blocks must come in the order they were sent, wanted or not. */
  decode(block: Buffer, start: number, end: number, listBytesMax: number): DecodedFields {
    this.block = block
    this.at = start
    this.end = end
    const fields: HeaderField[] = []
    let listBytes = 0
    let tooLarge = false
    let sizeUpdates = 0
    while (this.at < end) {
      const byte = block[this.at]!
      let field: HeaderField
      if (byte >= 0x80) field = this.lookup(this.integer(7))
      else if (byte >= 0x40) {
        field = this.literal(6)
        this.table.insert(field)
        this.changes++
      } else if (byte >= 0x20) {
        // Section 4.2: at the beginning of a block, two at most are of any use.
        if (fields.length > 0 || tooLarge || ++sizeUpdates > 2)
          throw compressionError('table size update out of place')
        this.resize(this.integer(5))
        continue
      } else field = this.literal(4)
      listBytes += fieldSize(field)
      if (listBytes > listBytesMax) tooLarge = true
      else fields.push(field)
    }
    this.block = Buffer.alloc(0)
    return { fields, tooLarge }
  }

  private resize(sizeBytes: number): void {
    if (sizeBytes > this.tableBytesMax) throw compressionError('table size update over the limit')
    this.table.resize(sizeBytes)
    this.changes++
  }

  private lookup(index: number): HeaderField {
    const field = index <= 61 ? staticTable[index - 1] : this.table.at(index - 62)
    if (field === undefined) throw compressionError(`no header field at index ${index}`)
    return field
  }

  private literal(prefixBits: number): HeaderField {
    const index = this.integer(prefixBits)
    const name = index === 0 ? this.string() : this.lookup(index).name
    return headerField(name, this.string())
  }

  /** Section 5.1; `at` is on the byte with the prefix. */
  private integer(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1
    let value = this.block[this.at++]! & mask
    if (value < mask) return value
    for (let shift = 0; ; shift += 7) {
      if (this.at >= this.end) throw compressionError('header block ends within an integer')
      const byte = this.block[this.at++]!
      value += (byte & 0x7f) * 2 ** shift
      if (value > integerMax || shift > 28) throw compressionError('integer too large')
      if (byte < 0x80) return value
    }
  }

  /** Section 5.2. */
  private string(): string {
    if (this.at >= this.end) throw compressionError('header block ends before a string')
    const huffman = this.block[this.at]! >= 0x80
    const length = this.integer(7)
    const start = this.at
    if (length > this.end - start) throw compressionError('header block ends within a string')
    this.at += length
    if (!huffman) return this.block.toString('latin1', start, this.at)
    const text = decodeHuffman(this.block, start, this.at)
    if (text === undefined) throw compressionError('invalid Huffman code')
    return text
  }
}
