import type { OutBuffer } from './out-buffer.ts'

/** An integer behind the bits of `first` (RFC 7541, section 5.1). */
export function writeInteger(out: OutBuffer, prefixBits: number, first: number, value: number): void {
  const mask = (1 << prefixBits) - 1
  if (value < mask) {
    out.byte(first | value)
    return
  }
  out.byte(first | mask)
  let rest = value - mask
  while (rest >= 0x80) {
    out.byte((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  out.byte(rest)
}

/** A string as it is, without Huffman code (section 5.2). */
export function writeString(out: OutBuffer, text: string): void {
  writeInteger(out, 7, 0, text.length)
  out.latin1(text)
}
