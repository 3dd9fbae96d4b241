/**
 * bbolt's file, little endian. A page begins with id u64, flags u16, count u16, overflow u32 (pages that follow and belong to
 * it). Pages 0 and 1 are metas, of which the valid one with the higher transaction counts. A leaf element is flags u32,
 * pos u32, key size u32, value size u32; a branch element pos u32, key size u32, page u64; `pos` counts from the element
 * itself. A bucket is a leaf element with flag 1 whose value is root page u64 and sequence u64; root 0 means that its only
 * page stands inline behind them.
 */
export const pageHeadBytes = 16
export const elementBytes = 16
export const metaBytes = 64
export const bucketHeadBytes = 16
export const writtenPageBytes = 4096
export const keyBytesMax = 32_768

export const magic = 0xed0cdaed
export const formatVersion = 2

export const flags = { branch: 1, leaf: 2, meta: 4, freelist: 16 } as const
export const bucketFlag = 1
/** Freelist of a meta whose database does not store one. */
export const noFreelist = 0xffff_ffff_ffff_ffffn

export type Meta = {
  pageBytes: number
  root: number
  sequence: bigint
  freelist: bigint
  /** Pages of the file: the first id that is not in use. */
  pages: number
  transaction: bigint
}

export function encodeMeta(page: Buffer, id: number, meta: Meta): void {
  encodePageHead(page, { id, flags: flags.meta, count: 0, overflow: 0 })
  page.writeUInt32LE(magic, 16)
  page.writeUInt32LE(formatVersion, 20)
  page.writeUInt32LE(meta.pageBytes, 24)
  page.writeUInt32LE(0, 28)
  page.writeBigUInt64LE(BigInt(meta.root), 32)
  page.writeBigUInt64LE(meta.sequence, 40)
  page.writeBigUInt64LE(meta.freelist, 48)
  page.writeBigUInt64LE(BigInt(meta.pages), 56)
  page.writeBigUInt64LE(meta.transaction, 64)
  page.writeBigUInt64LE(fnv64a(page.subarray(16, 72)), 72)
}

/** The meta in a page, or why it is none. */
export function decodeMeta(page: Buffer): Meta | string {
  if (page.length < pageHeadBytes + metaBytes) return 'the file is too short'
  if (page.readUInt32LE(16) !== magic) return 'it does not have the magic number of bbolt'
  if (page.readUInt32LE(20) !== formatVersion) return `it has format ${page.readUInt32LE(20)}`
  if (page.readBigUInt64LE(72) !== fnv64a(page.subarray(16, 72))) return 'its checksum is wrong'
  const pageBytes = page.readUInt32LE(24)
  if (pageBytes < 1024 || pageBytes > 65_536 || (pageBytes & (pageBytes - 1)) !== 0) {
    return `it has pages of ${pageBytes} bytes`
  }
  const root = page.readBigUInt64LE(32)
  const pages = page.readBigUInt64LE(56)
  if (pages > BigInt(Number.MAX_SAFE_INTEGER) / 65_536n || root >= pages)
    return 'it names pages beyond its end'
  return {
    pageBytes,
    root: Number(root),
    sequence: page.readBigUInt64LE(40),
    freelist: page.readBigUInt64LE(48),
    pages: Number(pages),
    transaction: page.readBigUInt64LE(64),
  }
}

export function encodePageHead(
  page: Buffer,
  head: { id: number; flags: number; count: number; overflow: number },
): void {
  page.writeBigUInt64LE(BigInt(head.id), 0)
  page.writeUInt16LE(head.flags, 8)
  page.writeUInt16LE(head.count, 10)
  page.writeUInt32LE(head.overflow, 12)
}

/** FNV-1a of 64 bits: what a meta page is checked with. */
export function fnv64a(bytes: Uint8Array): bigint {
  let hash = 0xcbf29ce484222325n
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n)
  return hash
}
