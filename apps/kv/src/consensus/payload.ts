/**
 * Entries carry who proposed them, so that the proposer recognises its own when it applies them: version u8, origin u64 (drawn
 * anew by each start of a member), sequence f64, then the data. Little endian.
 */
const version = 1
const headBytes = 17

export type Payload = { origin: bigint; sequence: number; data: Uint8Array }

export function encodePayload({ origin, sequence, data }: Payload): Uint8Array {
  // Small ones share a pool: an allocation of its own for each entry would cost more than the entry.
  const bytes = Buffer.allocUnsafe(headBytes + data.length)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  bytes[0] = version
  view.setBigUint64(1, origin, true)
  view.setFloat64(9, sequence, true)
  bytes.set(data, headBytes)
  return bytes
}

/** Throws for a version that is not known: skipping an entry would make members disagree. */
export function decodePayload(bytes: Uint8Array): Payload {
  if (bytes[0] !== version || bytes.length < headBytes) {
    throw new Error(`an entry has the unknown payload version ${bytes[0]}`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return {
    origin: view.getBigUint64(1, true),
    sequence: view.getFloat64(9, true),
    data: bytes.subarray(headBytes),
  }
}
