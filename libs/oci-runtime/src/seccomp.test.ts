import { expect, test } from 'vitest'
import { parseSeccomp, type Seccomp } from './config.ts'
import { defaultSeccomp } from './default-seccomp.ts'
import { compileSeccomp } from './seccomp.ts'

const x86 = 0xc000003e
const i386 = 0x40000003
const allow = 0x7fff0000
const killProcess = 0x80000000
const errno = (number: number) => 0x00050000 + number

/** The kernel's part: runs the filter over one system call. */
function runFilter(filter: Buffer, call: { arch?: number; nr: number; args?: bigint[] }): number {
  const data = Buffer.alloc(64)
  data.writeUInt32LE(call.nr, 0)
  data.writeUInt32LE(call.arch ?? x86, 4)
  for (const [at, value] of (call.args ?? []).entries()) data.writeBigUInt64LE(value, 16 + 8 * at)
  let a = 0
  for (let at = 0; ; at++) {
    const [code, yes, no] = [filter.readUInt16LE(8 * at), filter[8 * at + 2]!, filter[8 * at + 3]!]
    const k = filter.readUInt32LE(8 * at + 4)
    if (code === 0x20) a = data.readUInt32LE(k)
    else if (code === 0x54) a = (a & k) >>> 0
    else if (code === 0x05) at += k
    else if (code === 0x15) at += a === k ? yes : no
    else if (code === 0x25) at += a > k ? yes : no
    else if (code === 0x35) at += a >= k ? yes : no
    else if (code === 0x06) return k
    else throw new Error(`unknown instruction ${code}`)
  }
}

const profile = (more: Partial<Seccomp>): Seccomp => ({ defaultAction: 'SCMP_ACT_ALLOW', ...more })
const compile = (more: Partial<Seccomp>) => compileSeccomp(profile(more), 'x64').filter

test('listed calls get their action, others the default', () => {
  const filter = compile({
    syscalls: [
      { names: ['mkdir', 'mkdirat', 'no_such_call'], action: 'SCMP_ACT_ERRNO' },
      { names: ['rmdir'], action: 'SCMP_ACT_ERRNO', errnoRet: 28 },
      { names: ['reboot'], action: 'SCMP_ACT_KILL_PROCESS' },
    ],
  })
  expect(runFilter(filter, { nr: 83 })).toBe(errno(1))
  expect(runFilter(filter, { nr: 258 })).toBe(errno(1))
  expect(runFilter(filter, { nr: 84 })).toBe(errno(28))
  expect(runFilter(filter, { nr: 169 })).toBe(killProcess)
  for (const nr of [0, 82, 85, 168, 170, 257, 259, 462, 9999]) expect(runFilter(filter, { nr })).toBe(allow)
})

test('numbers of another architecture or of x32 do not slip through', () => {
  const syscalls = [{ names: ['mkdir'], action: 'SCMP_ACT_ERRNO' }]
  const alone = compile({ syscalls })
  expect(runFilter(alone, { arch: i386, nr: 39 })).toBe(killProcess)
  expect(runFilter(alone, { nr: 0x40000000 + 83 })).toBe(killProcess)
  const all = compile({ syscalls, architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'] })
  expect(runFilter(all, { arch: i386, nr: 39 })).toBe(errno(1))
  expect(runFilter(all, { arch: i386, nr: 83 })).toBe(allow)
  expect(runFilter(all, { nr: 0x40000000 + 83 })).toBe(errno(1))
})

test('where calls get an errno by default, those newer than any in the profile do not exist', () => {
  const refusing = (more: Partial<Seccomp>) => compile({ defaultAction: 'SCMP_ACT_ERRNO', ...more })
  const syscalls = [
    { names: ['read', 'mkdir'], action: 'SCMP_ACT_ALLOW' },
    { names: ['rmdir'], action: 'SCMP_ACT_ERRNO' },
  ]
  const filter = refusing({
    syscalls,
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  })
  const says = (nr: number, arch = x86): number => runFilter(filter, { nr, arch })
  expect([0, 83].map((nr) => says(nr))).toEqual([allow, allow])
  expect([1, 82, 84].map((nr) => says(nr))).toEqual([errno(1), errno(1), errno(1)])
  expect([85, 1000, 0x3fffffff].map((nr) => says(nr))).toEqual([errno(38), errno(38), errno(38)])
  // Each architecture by its own numbers: mkdir is 39 and rmdir 40 of i386.
  expect([39, 40, 41].map((nr) => says(nr, i386))).toEqual([allow, errno(1), errno(38)])
  expect([83, 84, 85].map((nr) => says(0x40000000 + nr))).toEqual([allow, errno(1), errno(38)])
  // The errno of the profile is for calls that it could have named; a profile that names none says nothing of age.
  expect(runFilter(refusing({ defaultErrnoRet: 6, syscalls }), { nr: 1 })).toBe(errno(6))
  expect(runFilter(refusing({ defaultErrnoRet: 6, syscalls }), { nr: 85 })).toBe(errno(38))
  expect(runFilter(refusing({}), { nr: 85 })).toBe(errno(1))
  expect(runFilter(compile({ defaultAction: 'SCMP_ACT_KILL', syscalls }), { nr: 85 })).toBe(0)
})

const cases: [string, bigint, bigint, [bigint, boolean][]][] = [
  [
    'SCMP_CMP_EQ',
    0x100000002n,
    0n,
    [
      [0x100000002n, true],
      [2n, false],
      [0x100000000n, false],
    ],
  ],
  [
    'SCMP_CMP_NE',
    0x100000002n,
    0n,
    [
      [0x100000002n, false],
      [2n, true],
      [0x100000003n, true],
    ],
  ],
  [
    'SCMP_CMP_GT',
    0x100000002n,
    0n,
    [
      [0x100000002n, false],
      [0x100000003n, true],
      [0x200000000n, true],
      [0xffffffffn, false],
    ],
  ],
  [
    'SCMP_CMP_GE',
    0x100000002n,
    0n,
    [
      [0x100000002n, true],
      [0x100000001n, false],
      [0x200000000n, true],
      [0xffffffffn, false],
    ],
  ],
  [
    'SCMP_CMP_LT',
    0x100000002n,
    0n,
    [
      [0x100000002n, false],
      [0x100000001n, true],
      [0x200000000n, false],
      [0xffffffffn, true],
    ],
  ],
  [
    'SCMP_CMP_LE',
    0x100000002n,
    0n,
    [
      [0x100000002n, true],
      [0x100000003n, false],
      [0x200000000n, false],
      [0xffffffffn, true],
    ],
  ],
  [
    'SCMP_CMP_MASKED_EQ',
    0x7e020000n,
    0n,
    [
      [0x11n, true],
      [0x20000n, false],
      [0x10000000011n, true],
    ],
  ],
]

test.each(cases)('%s compares 64 bits', (op, value, valueTwo, expected) => {
  const args = [{ index: 1, op, value: Number(value), valueTwo: Number(valueTwo) }]
  const filter = compile({ syscalls: [{ names: ['kill'], action: 'SCMP_ACT_ERRNO', args }] })
  for (const [argument, holds] of expected)
    expect(runFilter(filter, { nr: 62, args: [0n, argument] }), `${op} ${argument}`).toBe(
      holds ? errno(1) : allow,
    )
})

test('conditions on several arguments all hold, several on one are alternatives', () => {
  const equal = (index: number, value: number) => ({ index, value, op: 'SCMP_CMP_EQ' })
  const both = compile({
    syscalls: [{ names: ['kill'], action: 'SCMP_ACT_ERRNO', args: [equal(0, 1), equal(1, 2)] }],
  })
  expect(runFilter(both, { nr: 62, args: [1n, 2n] })).toBe(errno(1))
  expect(runFilter(both, { nr: 62, args: [1n, 3n] })).toBe(allow)
  const either = compile({
    syscalls: [{ names: ['kill'], action: 'SCMP_ACT_ERRNO', args: [equal(1, 1), equal(1, 2)] }],
  })
  expect(runFilter(either, { nr: 62, args: [0n, 1n] })).toBe(errno(1))
  expect(runFilter(either, { nr: 62, args: [0n, 2n] })).toBe(errno(1))
  expect(runFilter(either, { nr: 62, args: [0n, 3n] })).toBe(allow)
})

test('what the kernel could not do as asked is refused with its place', () => {
  expect(() => compile({ defaultAction: 'SCMP_ACT_BOGUS' })).toThrow('linux.seccomp.defaultAction: unknown')
  expect(() => compile({ syscalls: [{ names: ['kill'], action: 'SCMP_ACT_NOTIFY' }] })).toThrow(
    'listenerPath: missing',
  )
  expect(() => compile({ flags: ['SECCOMP_FILTER_FLAG_NONE'] })).toThrow('linux.seccomp.flags')
  expect(() => compile({ syscalls: [{ names: ['kill'], action: 'SCMP_ACT_ALLOW', errnoRet: 1 }] })).toThrow(
    'syscalls.0.errnoRet',
  )
})

test('the default profile refuses what is of the whole machine, and answers calls that it does not know as an older kernel', () => {
  const plain = compileSeccomp(defaultSeccomp(new Set()), 'x64').filter
  const able = compileSeccomp(defaultSeccomp(new Set(['SYS_CHROOT'])), 'x64').filter
  const says = (nr: number, ...args: bigint[]): number => runFilter(plain, { nr, args })
  // read, execve, mkdir, fork, chroot, mount, bpf, unshare, keyctl, io_uring_setup, clone3, a call of the future
  for (const nr of [0, 59, 83, 57]) expect(says(nr)).toBe(allow)
  for (const nr of [161, 165, 321, 272, 250, 425]) expect(says(nr)).toBe(errno(1))
  for (const nr of [435, 999]) expect(says(nr)).toBe(errno(38))
  expect(runFilter(able, { nr: 161 })).toBe(allow)
  // clone: threads yes, namespaces no; socket: TCP yes, vsock no, nor with bits that the kernel does not look at.
  expect(says(56, 0x3d0f00n)).toBe(allow)
  expect(says(56, 0x10000000n)).toBe(errno(1))
  expect(says(41, 2n)).toBe(allow)
  expect(says(41, 40n)).toBe(errno(1))
  expect(says(41, 0x1_0000_0028n)).toBe(errno(1))
  expect([says(135, 0n), says(135, 0xffffffffn), says(135, 0x40000n)]).toEqual([allow, allow, errno(1)])
  // The calls of 32 bits have their own numbers: mkdir, mount. By the x32 numbers nothing is called.
  expect(runFilter(plain, { arch: i386, nr: 39 })).toBe(allow)
  expect(runFilter(plain, { arch: i386, nr: 21 })).toBe(errno(1))
  expect(says(0x40000000)).toBe(killProcess)
})

test('a profile with conditions of another format is refused, as they would be lost', () => {
  const rule = { names: ['mount'], action: 'SCMP_ACT_ALLOW' }
  const read = (more: object) => parseSeccomp(JSON.stringify(profile({ syscalls: [{ ...rule, ...more }] })))
  expect(read({ includes: {} }).syscalls).toHaveLength(1)
  expect(() => read({ includes: { caps: ['CAP_SYS_ADMIN'] } })).toThrow(/includes is not of the runtime spec/)
})
