import { grpcCode, type Status } from './status.ts'

const prefixBytes = 5
/** A message in pieces starts with a buffer of this size and grows with what really arrives. */
const firstBytes = 64 * 1024

/** Where the reader's memory is counted, and its bounds. */
export type MessageBudget = {
  partialBytes: number
  limits: { messageBytesMax: number; partialBytesMax: number }
}

/** What a body chunk is if it holds exactly one whole message: the usual unary request. */
export function wholeMessage(chunk: Buffer, start: number, end: number): Uint8Array | undefined {
  if (end - start < prefixBytes || chunk[start] !== 0) return undefined
  if (chunk.readUInt32BE(start + 1) !== end - start - prefixBytes) return undefined
  return chunk.subarray(start + prefixBytes, end)
}

/** Puts the length-prefixed messages of one call together (PROTOCOL-HTTP2.md, "Length-Prefixed-Message"). */
export class MessageReader {
  private readonly budget: MessageBudget
  private readonly onMessage: (message: Uint8Array) => void
  private readonly prefix = new Uint8Array(prefixBytes)
  private prefixFilled = 0
  private length = 0
  private message: Buffer | undefined
  private filled = 0

  constructor(budget: MessageBudget, onMessage: (message: Uint8Array) => void) {
    this.budget = budget
    this.onMessage = onMessage
  }

  /** True within a message. */
  get incomplete(): boolean {
    return this.prefixFilled > 0
  }

  /** Takes body bytes; a status says why the call must end. */
  push(chunk: Buffer, start: number, end: number): Status | undefined {
    let at = start
    while (at < end) {
      if (this.prefixFilled < prefixBytes) {
        this.prefix[this.prefixFilled++] = chunk[at++]!
        if (this.prefixFilled < prefixBytes) continue
        const refused = this.readPrefix()
        if (refused !== undefined) return refused
        if (end - at >= this.length) {
          const message = chunk.subarray(at, at + this.length)
          at += this.length
          this.prefixFilled = 0
          this.onMessage(message)
          continue
        }
      }
      const take = Math.min(end - at, this.length - this.filled)
      if (!this.makeRoom(this.filled + take))
        return { code: grpcCode.resourceExhausted, message: 'too many unfinished messages' }
      chunk.copy(this.message!, this.filled, at, at + take)
      this.filled += take
      at += take
      if (this.filled === this.length) {
        const message = this.message!
        this.release()
        this.prefixFilled = 0
        this.onMessage(message.subarray(0, this.length))
      }
    }
    return undefined
  }

  /** Gives back the memory of an unfinished message. */
  release(): void {
    if (this.message === undefined) return
    this.budget.partialBytes -= this.message.length
    this.message = undefined
    this.filled = 0
  }

  private readPrefix(): Status | undefined {
    const [flag = 0, a = 0, b = 0, c = 0, d = 0] = this.prefix
    if (flag === 1)
      return {
        code: grpcCode.unimplemented,
        message: 'grpc: Decompressor is not installed for grpc-encoding',
      }
    if (flag !== 0)
      return { code: grpcCode.internal, message: `grpc: received unexpected payload format ${flag}` }
    this.length = a * 2 ** 24 + ((b << 16) | (c << 8) | d)
    const max = this.budget.limits.messageBytesMax
    if (this.length <= max) return undefined
    return {
      code: grpcCode.resourceExhausted,
      message: `grpc: received message larger than max (${this.length} vs. ${max})`,
    }
  }

  private makeRoom(bytes: number): boolean {
    const have = this.message?.length ?? 0
    if (this.message !== undefined && bytes <= have) return true
    const size = Math.min(this.length, Math.max(bytes, firstBytes, 2 * have))
    const { budget } = this
    if (budget.partialBytes + size - have > budget.limits.partialBytesMax) return false
    const larger = Buffer.allocUnsafeSlow(size)
    this.message?.copy(larger, 0, 0, this.filled)
    this.message = larger
    budget.partialBytes += size - have
    return true
  }
}
