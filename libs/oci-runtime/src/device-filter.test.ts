import { expect, test } from 'vitest'
import type { DeviceRule } from './config.ts'
import { compileDeviceFilter } from './device-filter.ts'

/** The kernel's part, for the instructions the compiler uses. */
function allowed(program: Buffer, type: 'b' | 'c', access: string, major: number, minor: number): boolean {
  const bits = [...access].reduce((sum, letter) => sum | { m: 1, r: 2, w: 4 }[letter]!, 0)
  const context = [((bits << 16) | { b: 1, c: 2 }[type]) >>> 0, major, minor]
  const registers = new Array<number>(10).fill(0)
  for (let at = 0; ; at++) {
    const code = program[8 * at]!
    const dst = program[8 * at + 1]! & 15
    const src = program[8 * at + 1]! >> 4
    const offset = program.readInt16LE(8 * at + 2)
    const imm = program.readInt32LE(8 * at + 4)
    if (code === 0x61) registers[dst] = context[offset / 4]!
    else if (code === 0x54) registers[dst] = registers[dst]! & imm
    else if (code === 0x74) registers[dst] = registers[dst]! >>> imm
    else if (code === 0xbc) registers[dst] = registers[src]!
    else if (code === 0xb7) registers[dst] = imm
    else if (code === 0x56) at += registers[dst] === imm ? 0 : offset
    else if (code === 0x16) at += registers[dst] === imm ? offset : 0
    else if (code === 0x5e) at += registers[dst] === registers[src] ? 0 : offset
    else if (code === 0x95) return registers[0] === 1
    else throw new Error(`unknown instruction ${code}`)
  }
}

test('the last rule that speaks of an access decides', () => {
  const rules: DeviceRule[] = [
    { allow: false, access: 'rwm' },
    { allow: true, type: 'c', major: 1, minor: 3, access: 'rw' },
    { allow: true, type: 'b', major: 8, access: 'r' },
    { allow: false, type: 'b', major: 8, minor: 1, access: 'r' },
    { allow: true, type: 'c', access: 'm' },
  ]
  const program = compileDeviceFilter(rules)
  expect(allowed(program, 'c', 'rw', 1, 3)).toBe(true)
  expect(allowed(program, 'c', 'rwm', 1, 3)).toBe(false)
  expect(allowed(program, 'c', 'm', 7, 7)).toBe(true)
  expect(allowed(program, 'c', 'r', 1, 4)).toBe(false)
  expect(allowed(program, 'b', 'r', 8, 0)).toBe(true)
  expect(allowed(program, 'b', 'w', 8, 0)).toBe(false)
  expect(allowed(program, 'b', 'r', 8, 1)).toBe(false)
})

test('without any rule nothing is allowed, and a rule for everything ends the program', () => {
  expect(allowed(compileDeviceFilter([]), 'c', 'r', 1, 3)).toBe(false)
  const all = compileDeviceFilter([{ allow: false }, { allow: true, access: 'rwm' }])
  expect(allowed(all, 'b', 'rwm', 8, 0)).toBe(true)
  expect(all.length).toBe(8 * 8)
})
