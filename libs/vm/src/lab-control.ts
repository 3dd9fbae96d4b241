import { rmSync } from 'node:fs'
import { connect, createServer, type Server } from 'node:net'
import { Fault } from '@kiln/service'
import * as z from 'zod'

const Rule = z.object({
  from: z.string(),
  to: z.string(),
  fault: z.union([
    z.object({ cut: z.literal(true) }),
    z.object({
      cut: z.literal(false).optional(),
      delayMs: z.number().min(0).optional(),
      lossPercent: z.number().min(0).max(100).optional(),
    }),
  ]),
})

/** What the process that owns a virtual cluster can be asked to do. */
export const LabRequest = z.discriminatedUnion('command', [
  z.object({ command: z.literal('status') }),
  /** Ends everything; with a grace the machines are asked to shut down first. */
  z.object({ command: z.literal('stop'), graceMs: z.number().min(0).default(0) }),
  z.object({
    command: z.literal('power'),
    machine: z.string(),
    /** `off` pulls the plug, `on` starts the machine again, `button` asks it to shut down. */
    action: z.enum(['on', 'off', 'reset', 'button', 'pause', 'resume']),
  }),
  /** Replaces all faults of the switch. */
  z.object({ command: z.literal('faults'), rules: z.array(Rule) }),
  z.object({ command: z.literal('boot-server'), action: z.enum(['start', 'stop']) }),
  /**
   * Saves or restores all machines and the boot server as one: all stopped, all saved, and on a restore all loaded
   * before any goes on. The guests' wall clocks stand where they were until somebody sets them.
   */
  z.object({ command: z.literal('snapshot'), action: z.enum(['save', 'restore']), name: z.string() }),
])
export type LabRequest = z.input<typeof LabRequest>

export const LabStatus = z.object({
  bootServer: z.enum(['running', 'stopped']),
  machines: z.array(
    z.object({
      name: z.string(),
      power: z.enum(['on', 'off']),
      pid: z.number().optional(),
      cpuSeconds: z.number().optional(),
      rssMiB: z.number().optional(),
      /** Seconds since the machine was switched on. */
      onSeconds: z.number().optional(),
    }),
  ),
  switch: z.object({
    ports: z.number(),
    frames: z.number(),
    bytes: z.number(),
    dropped: z.number(),
    delayed: z.number(),
  }),
})
export type LabStatus = z.output<typeof LabStatus>

const Reply = z.object({
  result: z.unknown().optional(),
  error: z.object({ code: z.string(), message: z.string() }).optional(),
})

const requestBytesMax = 64 * 1024

/** Serves requests, one JSON object a line, on a unix socket only its owner may open. */
export class LabControlServer {
  readonly #server: Server
  readonly #path: string

  private constructor(path: string, server: Server) {
    this.#path = path
    this.#server = server
  }

  static async listen(
    path: string,
    handle: (request: z.output<typeof LabRequest>) => Promise<unknown>,
  ): Promise<LabControlServer> {
    rmSync(path, { force: true })
    const server = createServer((socket) => {
      let text = ''
      socket.setEncoding('utf8')
      socket.on('error', () => socket.destroy())
      socket.on('data', (chunk: string) => {
        text += chunk
        if (text.length > requestBytesMax) socket.destroy()
        const end = text.indexOf('\n')
        if (end < 0) return
        const line = text.slice(0, end)
        text = text.slice(end + 1)
        void answer(line, handle).then((reply) => socket.write(JSON.stringify(reply) + '\n'))
      })
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    return new LabControlServer(path, server)
  }

  async close(): Promise<void> {
    this.#server.close()
    rmSync(this.#path, { force: true })
  }
}

async function answer(
  line: string,
  handle: (request: z.output<typeof LabRequest>) => Promise<unknown>,
): Promise<z.input<typeof Reply>> {
  try {
    return { result: (await handle(LabRequest.parse(JSON.parse(line)))) ?? null }
  } catch (error) {
    const code = error instanceof Fault ? error.code : 'LAB_REQUEST'
    return { error: { code, message: (error as Error).message } }
  }
}

/** Asks the owner of a virtual cluster; its faults are thrown here. */
export async function askLab(path: string, request: LabRequest, timeoutMs = 60_000): Promise<unknown> {
  const text = await new Promise<string>((resolve, reject) => {
    const socket = connect(path)
    let received = ''
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new Fault('LAB_TIMEOUT', `the virtual cluster did not answer ${request.command}`))
    }, timeoutMs)
    socket.setEncoding('utf8')
    socket.once('connect', () => socket.write(JSON.stringify(request) + '\n'))
    socket.on('data', (chunk: string) => {
      received += chunk
      if (!received.includes('\n')) return
      clearTimeout(timer)
      socket.destroy()
      resolve(received)
    })
    socket.once('error', (cause) => {
      clearTimeout(timer)
      reject(new Fault('LAB_UNREACHABLE', 'the virtual cluster does not run', { cause }))
    })
    socket.once('close', () => {
      clearTimeout(timer)
      reject(new Fault('LAB_UNREACHABLE', 'the virtual cluster ended while it was asked'))
    })
  })
  const reply = Reply.parse(JSON.parse(text))
  if (reply.error) throw new Fault(reply.error.code, reply.error.message)
  return reply.result
}

export async function labStatus(path: string): Promise<LabStatus> {
  return LabStatus.parse(await askLab(path, { command: 'status' }))
}
