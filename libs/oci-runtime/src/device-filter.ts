import type { DeviceRule } from './config.ts'

/**
 * eBPF for BPF_PROG_TYPE_CGROUP_DEVICE: the context is access_type (u32: access << 16 | type), major, minor. The last rule
 * that says something about an access decides, so the program asks the rules from the last to the first.
 */
const typeBits: Readonly<Record<string, number>> = { b: 1, c: 2, u: 2 }
const accessBits: Readonly<Record<string, number>> = { m: 1, r: 2, w: 4 }

type Instruction = { code: number; dst?: number; src?: number; offset?: number; imm?: number }

const loadWord = (dst: number, offset: number): Instruction => ({ code: 0x61, dst, src: 1, offset })
const alu = (code: number, dst: number, imm: number): Instruction => ({ code, dst, imm })
const move = (dst: number, src: number): Instruction => ({ code: 0xbc, dst, src })
const jumpUnless = (dst: number, imm: number): Instruction => ({ code: 0x56, dst, imm, offset: NaN })
const jumpUnlessRegister = (dst: number, src: number): Instruction => ({ code: 0x5e, dst, src, offset: NaN })
const returns = (value: number): Instruction[] => [{ code: 0xb7, dst: 0, imm: value }, { code: 0x95 }]

const and = 0x54
const shiftRight = 0x74

export function compileDeviceFilter(rules: DeviceRule[]): Buffer {
  const program: Instruction[] = [
    loadWord(2, 0),
    alu(and, 2, 0xffff),
    loadWord(3, 0),
    alu(shiftRight, 3, 16),
    loadWord(4, 4),
    loadWord(5, 8),
  ]
  let decided = false
  for (const rule of [...rules].reverse()) {
    const block = compileRule(rule)
    program.push(...block)
    decided = isUnconditional(rule)
    if (decided) break
  }
  if (!decided) program.push(...returns(0))
  return encode(program)
}

function isUnconditional({ type, major, minor, access }: DeviceRule): boolean {
  const all = !type || type === 'a'
  const any = (value: number | null | undefined) => value == null || value < 0
  return all && any(major) && any(minor) && [...new Set(access || 'rwm')].length === 3
}

function compileRule(rule: DeviceRule): Instruction[] {
  const block: Instruction[] = []
  const type = typeBits[rule.type || 'a']
  const access = [...(rule.access || 'rwm')].reduce((bits, letter) => bits | accessBits[letter]!, 0)
  if (type !== undefined) block.push(jumpUnless(2, type))
  if (access !== 7) {
    // Allowed: everything asked for is in the rule. Denied: something asked for is in it.
    block.push(move(1, 3), alu(and, 1, access))
    if (rule.allow) block.push(jumpUnlessRegister(1, 3))
    else block.push({ code: 0x16, dst: 1, imm: 0, offset: NaN })
  }
  if (rule.major != null && rule.major >= 0) block.push(jumpUnless(4, rule.major))
  if (rule.minor != null && rule.minor >= 0) block.push(jumpUnless(5, rule.minor))
  block.push(...returns(rule.allow ? 1 : 0))
  // Where a rule says nothing, on to the one before it.
  return block.map((instruction, at) =>
    Number.isNaN(instruction.offset) ? { ...instruction, offset: block.length - at - 1 } : instruction,
  )
}

function encode(program: Instruction[]): Buffer {
  const bytes = Buffer.alloc(8 * program.length)
  for (const [at, { code, dst = 0, src = 0, offset = 0, imm = 0 }] of program.entries()) {
    bytes.writeUInt8(code, 8 * at)
    bytes.writeUInt8((src << 4) | dst, 8 * at + 1)
    bytes.writeInt16LE(offset, 8 * at + 2)
    bytes.writeInt32LE(imm | 0, 8 * at + 4)
  }
  return bytes
}
