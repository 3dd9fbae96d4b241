import { connect, type Socket } from 'node:net'
import { Fault } from '@kiln/service'
import * as z from 'zod'

const Message = z.looseObject({
  return: z.unknown().optional(),
  error: z.object({ class: z.string(), desc: z.string() }).optional(),
  event: z.string().optional(),
  id: z.number().optional(),
})

type Waiting = { resolve: (value: unknown) => void; reject: (error: Error) => void; timer: NodeJS.Timeout }

/** QEMU's monitor protocol over a unix socket: JSON objects, one a line (QEMU docs/interop/qmp-spec). */
export class QmpClient {
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  readonly #listeners = new Set<(event: string) => void>()
  #nextId = 1
  #text = ''

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => this.#read(chunk))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      for (const [, waiting] of this.#waiting) {
        clearTimeout(waiting.timer)
        waiting.reject(new Fault('QMP_CLOSED', 'the virtual machine closed its monitor'))
      }
      this.#waiting.clear()
    })
  }

  /** Connects as soon as QEMU listens and leaves the negotiation mode. */
  static async connect(path: string, timeoutMs: number): Promise<QmpClient> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      try {
        const socket = await new Promise<Socket>((resolve, reject) => {
          const attempt = connect(path, () => resolve(attempt))
          attempt.once('error', reject)
        })
        const client = new QmpClient(socket)
        await client.call('qmp_capabilities')
        return client
      } catch (cause) {
        if (performance.now() > deadline) {
          throw new Fault('QMP_UNREACHABLE', `no QEMU monitor at ${path}`, { cause })
        }
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
  }

  call(execute: string, args?: Record<string, unknown>, timeoutMs = 30_000): Promise<unknown> {
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id)
        reject(new Fault('QMP_TIMEOUT', `QEMU did not answer ${execute} within ${timeoutMs} ms`))
      }, timeoutMs)
      this.#waiting.set(id, { resolve, reject, timer })
      this.#socket.write(JSON.stringify({ execute, arguments: args, id }) + '\n')
    })
  }

  onEvent(listener: (event: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    this.#socket.destroy()
  }

  #read(chunk: string): void {
    this.#text += chunk
    for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, end)
      this.#text = this.#text.slice(end + 1)
      if (line.trim() === '') continue
      const message = Message.parse(JSON.parse(line))
      if (message.event) for (const listener of this.#listeners) listener(message.event)
      const waiting = message.id === undefined ? undefined : this.#waiting.get(message.id)
      if (!waiting || message.id === undefined) continue
      this.#waiting.delete(message.id)
      clearTimeout(waiting.timer)
      if (message.error) waiting.reject(new Fault('QMP_REFUSED', message.error.desc))
      else waiting.resolve(message.return)
    }
  }
}
