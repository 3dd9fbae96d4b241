import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'

/**
 * As much of systemd's private bus as Ignition asks for: it starts the unit of a device and waits for the job's end
 * (D-Bus Specification 0.43, "Message Protocol"). The device's disk is read again with partx before the answer, where
 * udev and a kernel that reads tables would have done so.
 */
export async function standInForSystemd(path: string, disk: () => string): Promise<Server> {
  mkdirSync(dirname(path), { recursive: true })
  const sockets = new Set<Socket>()
  let job = 0
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => undefined)
    let buffer: Buffer = Buffer.alloc(0)
    let talking = false
    socket.on('data', (chunk) => {
      buffer = Buffer.concat([buffer, chunk])
      while (!talking) {
        const end = buffer.indexOf('\r\n')
        if (end < 0) return
        const line = buffer.subarray(0, end).toString('latin1').replace(/^\0/, '')
        buffer = buffer.subarray(end + 2)
        if (line === 'BEGIN') talking = true
        else if (line === 'AUTH') socket.write('REJECTED EXTERNAL\r\n')
        else if (line.startsWith('AUTH EXTERNAL')) socket.write(`OK ${'0'.repeat(32)}\r\n`)
        else socket.write('ERROR\r\n')
      }
      for (let call = takeCall(buffer); call; call = takeCall(buffer)) {
        buffer = buffer.subarray(call.bytes)
        if (call.member !== 'StartUnit') {
          socket.write(message({ type: 2, replyTo: call.serial }))
          continue
        }
        readTable(disk())
        const object = `/org/freedesktop/systemd1/job/${++job}`
        socket.write(message({ type: 2, replyTo: call.serial, signature: 'o', values: [object] }))
        const values = [job, object, call.firstArgument, 'done']
        const removed = message({ type: 4, member: 'JobRemoved', signature: 'uoss', values })
        // One connection calls, another one listens for signals.
        for (const each of sockets) each.write(removed)
      }
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  return server
}

function readTable(disk: string): void {
  try {
    execFileSync('partx', ['--delete', disk], { stdio: 'ignore' })
  } catch {
    // It had none.
  }
  try {
    execFileSync('partx', ['--add', disk], { stdio: 'ignore' })
  } catch {
    // It has none.
  }
}

type Call = { bytes: number; serial: number; member: string; firstArgument: string }

const align = (offset: number, to: number): number => Math.ceil(offset / to) * to

/** The first whole message of a buffer; calls of Ignition are little-endian. */
function takeCall(buffer: Buffer): Call | undefined {
  if (buffer.length < 16) return undefined
  const fieldsEnd = 16 + buffer.readUInt32LE(12)
  const bodyStart = align(fieldsEnd, 8)
  const bytes = bodyStart + buffer.readUInt32LE(4)
  if (buffer.length < bytes) return undefined
  let member = ''
  for (let at = 16; at < fieldsEnd; ) {
    at = align(at, 8)
    const code = buffer[at]
    const type = String.fromCharCode(buffer[at + 2]!)
    at = align(at + 4, type === 'g' ? 1 : 4)
    const length = type === 'g' ? buffer[at]! : type === 'u' ? 0 : buffer.readUInt32LE(at)
    const start = at + (type === 'g' ? 1 : 4)
    if (code === 3) member = buffer.subarray(start, start + length).toString()
    at = type === 'u' ? start : start + length + 1
  }
  const hasBody = bytes - bodyStart >= 4
  const length = hasBody ? buffer.readUInt32LE(bodyStart) : 0
  const firstArgument = buffer.subarray(bodyStart + 4, bodyStart + 4 + length).toString()
  return { bytes, serial: buffer.readUInt32LE(8), member, firstArgument }
}

type Answer = {
  type: 2 | 4
  replyTo?: number
  member?: string
  signature?: string
  values?: (string | number | undefined)[]
}

let serial = 0

function message({ type, replyTo, member, signature = '', values = [] }: Answer): Buffer {
  const body = new Writer()
  for (const value of values) {
    if (typeof value === 'number') body.u32(value)
    else body.text(value ?? '')
  }
  const fields = new Writer()
  if (replyTo !== undefined) fields.field(5, 'u').u32(replyTo)
  if (member !== undefined) {
    fields.field(1, 'o').text('/org/freedesktop/systemd1')
    fields.field(2, 's').text('org.freedesktop.systemd1.Manager')
    fields.field(3, 's').text(member)
  }
  if (signature !== '') fields.field(8, 'g').short(signature)
  const header = new Writer()
  header.raw('l'.charCodeAt(0), type, 1, 1)
  header.u32(body.length).u32(++serial).u32(fields.length)
  const padding = Buffer.alloc(align(16 + fields.length, 8) - 16 - fields.length)
  return Buffer.concat([header.bytes(), fields.bytes(), padding, body.bytes()])
}

/** Marshals values in the order they come, each on its own boundary. */
class Writer {
  private readonly parts: number[] = []

  get length(): number {
    return this.parts.length
  }

  bytes(): Buffer {
    return Buffer.from(this.parts)
  }

  raw(...bytes: number[]): this {
    this.parts.push(...bytes)
    return this
  }

  private pad(to: number): void {
    while (this.parts.length % to !== 0) this.parts.push(0)
  }

  u32(value: number): this {
    this.pad(4)
    return this.raw(value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, (value >> 24) & 0xff)
  }

  text(value: string): this {
    return this.u32(Buffer.byteLength(value)).raw(...Buffer.from(value), 0)
  }

  short(value: string): this {
    return this.raw(value.length, ...Buffer.from(value), 0)
  }

  field(code: number, type: string): this {
    this.pad(8)
    return this.raw(code).short(type)
  }
}
