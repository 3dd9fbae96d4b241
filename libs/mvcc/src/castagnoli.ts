const polynomial = 0x82f63b78

/** Eight tables of 256: `tables[k * 256 + b]` moves byte b on by k more bytes. */
const tables = makeTables()

function makeTables(): Uint32Array {
  const made = new Uint32Array(8 * 256)
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1
    made[byte] = crc
  }
  for (let at = 256; at < made.length; at++) {
    const before = made[at - 256]!
    made[at] = (before >>> 8) ^ made[before & 0xff]!
  }
  return made
}

/** CRC-32C (RFC 3720, appendix B.4), which node:zlib does not have; `crc` is that of what came before. */
export function crc32c(bytes: Uint8Array, crc = 0): number {
  let state = ~crc >>> 0
  let at = 0
  for (const end = bytes.length - 7; at < end; at += 8) {
    state ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    state =
      tables[1792 + (state & 0xff)]! ^
      tables[1536 + ((state >>> 8) & 0xff)]! ^
      tables[1280 + ((state >>> 16) & 0xff)]! ^
      tables[1024 + (state >>> 24)]! ^
      tables[768 + bytes[at + 4]!]! ^
      tables[512 + bytes[at + 5]!]! ^
      tables[256 + bytes[at + 6]!]! ^
      tables[bytes[at + 7]!]!
  }
  for (; at < bytes.length; at++) state = (state >>> 8) ^ tables[(state ^ bytes[at]!) & 0xff]!
  return ~state >>> 0
}
