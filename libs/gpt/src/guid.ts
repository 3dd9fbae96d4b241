/** Partition types that have a name here. Values: UEFI 2.10 section 5.3.3, the Discoverable Partitions
 * Specification, and Flatcar's for the A/B slots. */
export const partitionTypes = {
  linux: '0FC63DAF-8483-4772-8E79-3D69D8477DE4',
  efi: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
  usr: '8484680C-9521-48C6-9C11-B0720656F69E',
  root: '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709',
} as const

const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export function isGuid(text: string): boolean {
  return pattern.test(text)
}

/** Mixed-endian bytes of a GUID (UEFI 2.10, appendix A): the first three fields little-endian. */
export function guidBytes(text: string): Uint8Array {
  if (!isGuid(text)) throw new RangeError(`${text} is not a GUID`)
  const plain = Buffer.from(text.replaceAll('-', ''), 'hex')
  const bytes = new Uint8Array(16)
  for (const [to, from] of order.entries()) bytes[to] = plain[from]!
  return bytes
}

/** GUID text, upper case, of 16 mixed-endian bytes. */
export function guidText(bytes: Uint8Array): string {
  const plain = new Uint8Array(16)
  for (const [to, from] of order.entries()) plain[from] = bytes[to]!
  const hex = Buffer.from(plain).toString('hex').toUpperCase()
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
