import { open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '@kiln/service'

/** Bytes that outlive nothing: what is written can be read until the process ends. */
export type ScratchFile = {
  write(bytes: Uint8Array, at: number): Promise<void>
  /** Fewer bytes than asked for where the file ends. */
  read(at: number, length: number): Promise<Buffer>
  close(): Promise<void>
}

const name = 'values.scratch'

/** Opens a file in a folder and removes its name at once, so that its space goes with the process however that ends. */
export async function openScratchFile(folder: string): Promise<ScratchFile> {
  const path = join(folder, name)
  try {
    // One that a process left which ended between the two calls is emptied.
    const file = await open(path, 'w+', 0o600)
    await unlink(path)
    return {
      write: async (bytes, at) => {
        for (let done = 0; done < bytes.length; ) {
          done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten
        }
      },
      read: async (at, length) => {
        const bytes = Buffer.allocUnsafeSlow(length)
        let done = 0
        while (done < length) {
          const { bytesRead } = await file.read(bytes, done, length - done, at + done)
          if (bytesRead === 0) break
          done += bytesRead
        }
        return bytes.subarray(0, done)
      },
      close: () => file.close(),
    }
  } catch (cause) {
    throw new Fault('STORE_DATA_DIR', `cannot make ${path}`, { cause })
  }
}
