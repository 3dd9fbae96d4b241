import { assert } from '@kiln/service'
import { refuse } from './config.ts'

/** Classic BPF over `struct seccomp_data` (seccomp(2)): what the kernel runs at every system call. */
const load = 0x20
const and = 0x54
const jump = 0x05
const jumpEqual = 0x15
const jumpAbove = 0x25
const jumpAtLeast = 0x35
const answer = 0x06
const instructionsMax = 4096

type Instruction = { code: number; k: number; yes?: number; no?: number; to?: number }

/**
 * Emits instructions with labels. A conditional jump reaches 255 instructions only, so each is a short one over an
 * unconditional jump, which reaches everywhere; the kernel's own translation makes nothing of the difference.
 */
export class Assembler {
  private readonly code: Instruction[] = []
  private readonly places: number[] = []

  label(): number {
    return this.places.push(-1) - 1
  }

  place(label: number): void {
    assert(this.places[label] === -1, 'a label placed once')
    this.places[label] = this.code.length
  }

  loadNumber(): void {
    this.code.push({ code: load, k: 0 })
  }

  loadArchitecture(): void {
    this.code.push({ code: load, k: 4 })
  }

  loadArgument(index: number, half: 'low' | 'high', mask?: number): void {
    this.code.push({ code: load, k: 16 + 8 * index + (half === 'high' ? 4 : 0) })
    if (mask !== undefined) this.code.push({ code: and, k: mask })
  }

  ifEqual(k: number, to: number): void {
    this.branch(jumpEqual, k, to, true)
  }

  unlessEqual(k: number, to: number): void {
    this.branch(jumpEqual, k, to, false)
  }

  ifAbove(k: number, to: number): void {
    this.branch(jumpAbove, k, to, true)
  }

  unlessAbove(k: number, to: number): void {
    this.branch(jumpAbove, k, to, false)
  }

  ifBelow(k: number, to: number): void {
    this.branch(jumpAtLeast, k, to, false)
  }

  /** Goes to `to` from `k` on. */
  unlessBelow(k: number, to: number): void {
    this.branch(jumpAtLeast, k, to, true)
  }

  answer(result: number): void {
    this.code.push({ code: answer, k: result })
  }

  private branch(code: number, k: number, to: number, when: boolean): void {
    this.code.push({ code, k, yes: when ? 0 : 1, no: when ? 1 : 0 })
    this.code.push({ code: jump, k: 0, to })
  }

  assemble(): Buffer {
    if (this.code.length > instructionsMax)
      refuse([`linux.seccomp: ${this.code.length} instructions, the kernel takes ${instructionsMax}`])
    const bytes = Buffer.alloc(8 * this.code.length)
    for (const [at, { code, k, yes, no, to }] of this.code.entries()) {
      const target = to === undefined ? undefined : this.places[to]
      assert(target === undefined || target > at, 'jumps go forward')
      bytes.writeUInt16LE(code, 8 * at)
      bytes.writeUInt8(yes ?? 0, 8 * at + 2)
      bytes.writeUInt8(no ?? 0, 8 * at + 3)
      bytes.writeUInt32LE(target === undefined ? k : target - at - 1, 8 * at + 4)
    }
    return bytes
  }
}
