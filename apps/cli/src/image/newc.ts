/** cpio in the "newc" format, as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst). */

export type CpioEntry =
  | { kind: 'directory'; path: string }
  | { kind: 'file'; path: string; mode: number; content: Uint8Array }
  | { kind: 'link'; path: string; target: string }

const fileType = { directory: 0o040000, file: 0o100000, link: 0o120000 } as const

/** The archive of the entries in order of their paths, all owned by root, all with time zero: same entries, same bytes. */
export function packNewc(entries: readonly CpioEntry[]): Buffer {
  const blocks: Buffer[] = []
  const sorted = [...entries].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
  for (const [index, entry] of sorted.entries()) blocks.push(record(index + 1, entry))
  blocks.push(recordOf(0, 'TRAILER!!!', 0, 1, Buffer.alloc(0)))
  return Buffer.concat(blocks)
}

function record(inode: number, entry: CpioEntry): Buffer {
  switch (entry.kind) {
    case 'directory':
      return recordOf(inode, entry.path, fileType.directory | 0o755, 2, Buffer.alloc(0))
    case 'file':
      return recordOf(inode, entry.path, fileType.file | entry.mode, 1, entry.content)
    case 'link':
      return recordOf(inode, entry.path, fileType.link | 0o777, 1, Buffer.from(entry.target))
  }
}

function recordOf(inode: number, path: string, mode: number, links: number, content: Uint8Array): Buffer {
  const name = Buffer.from(`${path}\0`)
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, name.length, 0]
  const header = Buffer.from('070701' + fields.map((field) => field.toString(16).padStart(8, '0')).join(''))
  return Buffer.concat([pad(Buffer.concat([header, name])), pad(content)])
}

/** Every part starts at a multiple of four bytes. */
function pad(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])
}
