/** Field 11 of a WatchResponse, length-delimited. */
const eventsTag = (11 << 3) | 2

/** How many events an encoded WatchResponse has, without decoding them: a generator must cost less than what it measures. */
export function countEvents(bytes: Uint8Array): number {
  let count = 0
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at++]!
    if (tag === eventsTag) count++
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]!
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) break
    }
    // Of a message of this service all fields are numbers or have a length.
    if ((tag & 7) === 2) at += value
  }
  return count
}
