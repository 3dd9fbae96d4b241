/** A block of IPv4 addresses (RFC 4632): its first address as a number, and the length of the prefix. */
export type Ipv4Block = { first: number; length: number }

/** Reads `10.88.0.0/16`; undefined when it is no block, also when bits beyond the prefix are set. */
export function readBlock(text: string): Ipv4Block | undefined {
  const [, address = '', bits = ''] = /^((?:\d{1,3}\.){3}\d{1,3})\/(\d{1,2})$/.exec(text) ?? []
  const first = addressNumber(address)
  const length = Number(bits)
  if (first === undefined || bits === '' || length > 32 || first % sizeOf(length) !== 0) return undefined
  return { first, length }
}

/** An address as a number; undefined when it is none. */
export function addressNumber(address: string): number | undefined {
  const octets = address.split('.').map(Number)
  if (octets.length !== 4 || !octets.every((octet) => Number.isInteger(octet) && octet >= 0 && octet <= 255))
    return undefined
  return octets.reduce((sum, octet) => sum * 256 + octet, 0)
}

export const formatAddress = (address: number): string =>
  [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')

export const formatBlock = ({ first, length }: Ipv4Block): string => `${formatAddress(first)}/${length}`

/** How many addresses a block has. */
export const sizeOf = (length: number): number => 2 ** (32 - length)

export const blockHolds = (block: Ipv4Block, address: number): boolean =>
  address >= block.first && address < block.first + sizeOf(block.length)

export const blocksOverlap = (a: Ipv4Block, b: Ipv4Block): boolean =>
  blockHolds(a, b.first) || blockHolds(b, a.first)
