import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'
import { StringDecoder } from 'node:string_decoder'
import { Fault } from '@kiln/service'
import { plainLine } from './console-markers.ts'

/** Lines kept in memory; the file has all. */
const linesMax = 20_000
const pollMs = 100

/**
 * Follows the console log that QEMU writes. Reading the file, not the socket, leaves the console free for a person
 * and survives the reader.
 */
export class SerialLog {
  readonly path: string
  readonly lines: string[] = []
  readonly #listeners = new Set<(line: string) => void>()
  readonly #timer: NodeJS.Timeout
  #decoder = new StringDecoder('latin1')
  #position = 0
  #partial = ''
  #dropped = 0

  /** `from` is where to begin: `start`, or `end` for what comes after now. */
  constructor(path: string, from: 'start' | 'end' = 'start') {
    this.path = path
    if (from === 'end') this.#position = logSize(path)
    this.#timer = setInterval(() => this.poll(), pollMs)
    this.#timer.unref()
  }

  /** Reads what was appended since the last time. */
  poll(): void {
    if (!existsSync(this.path)) return
    const file = openSync(this.path, 'r')
    try {
      const buffer = Buffer.alloc(64 * 1024)
      if (fstatSync(file).size < this.#position) this.#position = 0
      for (;;) {
        const count = readSync(file, buffer, 0, buffer.length, this.#position)
        if (count === 0) break
        this.#position += count
        this.#append(this.#decoder.write(buffer.subarray(0, count)))
      }
    } finally {
      closeSync(file)
    }
  }

  onLine(listener: (line: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Number of lines seen so far: a place for `waitFor` to begin. */
  get mark(): number {
    return this.#dropped + this.lines.length
  }

  /** Resolves with the first line from `since` on that matches; `failOn` ends the wait with a fault. */
  async waitFor(
    pattern: RegExp,
    options: { timeoutMs: number; since?: number; failOn?: RegExp; signal?: AbortSignal },
  ): Promise<string> {
    const check = (line: string): boolean => {
      if (pattern.test(line)) return true
      if (options.failOn?.test(line)) throw new Fault('CONSOLE_BAD', `the console says: ${line}`)
      return false
    }
    this.poll()
    const start = Math.max(0, (options.since ?? 0) - this.#dropped)
    for (const line of this.lines.slice(start)) if (check(line)) return line
    return await new Promise((resolve, reject) => {
      const end = (act: () => void): void => {
        clearTimeout(timer)
        off()
        options.signal?.removeEventListener('abort', aborted)
        act()
      }
      const aborted = (): void => end(() => reject(new Fault('CANCELLED', 'the wait was cancelled')))
      const timer = setTimeout(() => {
        end(() =>
          reject(new Fault('CONSOLE_TIMEOUT', `${pattern} did not appear within ${options.timeoutMs} ms`)),
        )
      }, options.timeoutMs)
      const off = this.onLine((line) => {
        try {
          if (check(line)) end(() => resolve(line))
        } catch (error) {
          end(() => reject(error))
        }
      })
      options.signal?.addEventListener('abort', aborted, { once: true })
    })
  }

  close(): void {
    clearInterval(this.#timer)
  }

  #append(text: string): void {
    // Firmware redraws with bare carriage returns and cursor movements; both begin a new line for us.
    const pieces = (this.#partial + text).split(/\r?\n|\r(?!\n)|\u001b\[\d+;\d+H/)
    this.#partial = pieces.pop() ?? ''
    for (const piece of pieces) {
      const line = plainLine(piece)
      if (line === '') continue
      this.lines.push(line)
      if (this.lines.length > linesMax) {
        this.lines.shift()
        this.#dropped++
      }
      for (const listener of this.#listeners) listener(line)
    }
  }
}

function logSize(path: string): number {
  if (!existsSync(path)) return 0
  const file = openSync(path, 'r')
  try {
    return fstatSync(file).size
  } finally {
    closeSync(file)
  }
}
