import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'

export type JsonLines = {
  status: number
  /** The next line; fails when the stream has ended. */
  next(): Promise<Record<string, unknown>>
  /** All lines until the stream ends. */
  rest(): Promise<Record<string, unknown>[]>
  close(): void
}

/** Posts JSON and reads the answer line by line while it comes. */
export async function postLines(url: string, body: unknown): Promise<JsonLines> {
  const closing = new AbortController()
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const response = await fetch(url, { method: 'POST', body: text, signal: closing.signal })
  const stream = Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0])
  stream.on('error', () => undefined)
  const lines = createInterface({ input: stream })[Symbol.asyncIterator]()
  const next = async (): Promise<Record<string, unknown>> => {
    const { done, value } = await lines.next()
    if (done) throw new Error('the stream has ended')
    return JSON.parse(value) as Record<string, unknown>
  }
  return {
    status: response.status,
    next,
    rest: async () => {
      const all: Record<string, unknown>[] = []
      for (let line = await lines.next(); !line.done; line = await lines.next()) {
        all.push(JSON.parse(line.value) as Record<string, unknown>)
      }
      return all
    },
    close: () => closing.abort(),
  }
}
