import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { Fault } from '@kiln/service'
import tar from 'tar-stream'

/** A run of bytes in a file. */
export type Slice = { file: string; offset: number; length: number }

const entriesMax = 100_000

/** Finds the regular files of an uncompressed tar without reading them into memory. Links are resolved by name. */
export async function indexTar(file: string): Promise<Map<string, Slice>> {
  const index = new Map<string, Slice>()
  const extract = tar.extract()
  const feeding = pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), extract)
  feeding.catch(() => undefined)
  try {
    for await (const entry of extract) {
      const { name, type, size, linkname, byteOffset } = entry.header as typeof entry.header & {
        byteOffset: number
      }
      if (index.size >= entriesMax)
        throw new Fault('IMAGE_TOO_LARGE', `${file} has over ${entriesMax} entries`)
      const path = name.replace(/^\.\//, '')
      const target = type === 'link' || type === 'symlink' ? index.get(linkname ?? '') : undefined
      if (type === 'file') index.set(path, { file, offset: byteOffset, length: size ?? 0 })
      else if (target) index.set(path, target)
      entry.resume()
    }
    await feeding
  } catch (error) {
    extract.destroy()
    if (error instanceof Fault) throw error
    throw new Fault('IMAGE_ARCHIVE_INVALID', `${file} is not a readable tar archive`, { cause: error })
  }
  return index
}
