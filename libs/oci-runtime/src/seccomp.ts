import { assert } from '@kiln/service'
import { refuse, type Seccomp } from './config.ts'
import { Assembler } from './seccomp-assembler.ts'
import { type SyscallTable, syscallNumbers } from './syscalls.ts'

/** `SCMP_ACT_*` of the specification to `SECCOMP_RET_*` of the kernel; those with a value carry an errno or a number. */
const actions: Readonly<Record<string, number>> = {
  SCMP_ACT_KILL: 0x00000000,
  SCMP_ACT_KILL_THREAD: 0x00000000,
  SCMP_ACT_KILL_PROCESS: 0x80000000,
  SCMP_ACT_TRAP: 0x00030000,
  SCMP_ACT_ERRNO: 0x00050000,
  SCMP_ACT_TRACE: 0x7ff00000,
  SCMP_ACT_ALLOW: 0x7fff0000,
  SCMP_ACT_LOG: 0x7ffc0000,
  SCMP_ACT_NOTIFY: 0x7fc00000,
}
const withValue = new Set(['SCMP_ACT_ERRNO', 'SCMP_ACT_TRACE'])
export const seccompActions = Object.keys(actions)

const EPERM = 1
const ENOSYS = 38
const x32Bit = 0x40000000

/** `AUDIT_ARCH_*` and the table of each architecture whose calls the host may see. Others can never match. */
const architectures: Readonly<Record<string, { audit: number; table: SyscallTable } | undefined>> = {
  SCMP_ARCH_X86_64: { audit: 0xc000003e, table: 'x86_64' },
  SCMP_ARCH_X86: { audit: 0x40000003, table: 'i386' },
  SCMP_ARCH_X32: { audit: 0xc000003e, table: 'x32' },
  SCMP_ARCH_AARCH64: { audit: 0xc00000b7, table: 'aarch64' },
}
const foreign =
  'ARM MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB'
export const seccompArchitectures = [
  ...Object.keys(architectures),
  ...foreign.split(' ').map((name) => `SCMP_ARCH_${name}`),
]

/** `SECCOMP_FILTER_FLAG_*`. */
const flagBits: Readonly<Record<string, number>> = {
  SECCOMP_FILTER_FLAG_TSYNC: 1,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: 32,
}
const newListener = 8
export const seccompFlags = Object.keys(flagBits)

export const seccompOperators = [
  'SCMP_CMP_NE',
  'SCMP_CMP_LT',
  'SCMP_CMP_LE',
  'SCMP_CMP_EQ',
  'SCMP_CMP_GE',
  'SCMP_CMP_GT',
  'SCMP_CMP_MASKED_EQ',
] as const

type Condition = { index: number; op: (typeof seccompOperators)[number]; value: bigint; valueTwo: bigint }
/** What one call number leads to: the first whose conditions all hold decides. */
type Rule = { conditions: Condition[]; result: number }
/** The calls of one architecture by number, and the greatest number that the profile names, if it names any. */
type Rules = { byNumber: Map<number, Rule[]>; last: number | undefined }

export type SeccompProgram = { flags: number; filter: Buffer; listenerPath: string; listenerMetadata: string }

/** Compiles the profile to the kernel's BPF (config-linux.md, Seccomp). `host` is the architecture that runs. */
export function compileSeccomp(seccomp: Seccomp, host: 'x64' | 'arm64'): SeccompProgram {
  const problems = problemsOf(seccomp)
  if (problems.length > 0) refuse(problems)
  const fallback = resultOf(seccomp.defaultAction, seccomp.defaultErrnoRet)
  const native = host === 'arm64' ? 'SCMP_ARCH_AARCH64' : 'SCMP_ARCH_X86_64'
  const wanted = new Set([native, ...(seccomp.architectures ?? [])])
  const assembler = new Assembler()
  assembler.loadArchitecture()
  const audits = new Map<number, string[]>()
  for (const name of wanted) {
    const known = architectures[name]
    if (known) audits.set(known.audit, [...(audits.get(known.audit) ?? []), name])
  }
  for (const [audit, group] of audits) {
    const next = assembler.label()
    assembler.unlessEqual(audit, next)
    assembler.loadNumber()
    if (audit === architectures['SCMP_ARCH_X86_64']!.audit) {
      const plain = assembler.label()
      assembler.ifBelow(x32Bit, plain)
      // Calls by the x32 numbers would pass the rules of the others by: refused unless asked for.
      if (group.includes('SCMP_ARCH_X32'))
        decide(assembler, rulesOf(seccomp, 'x32', x32Bit, fallback), fallback)
      else assembler.answer(actions['SCMP_ACT_KILL_PROCESS']!)
      assembler.place(plain)
    }
    const main = group.find((name) => name !== 'SCMP_ARCH_X32')
    const table = main === undefined ? undefined : architectures[main]!.table
    if (table) decide(assembler, rulesOf(seccomp, table, 0, fallback), fallback)
    else assembler.answer(actions['SCMP_ACT_KILL_PROCESS']!)
    assembler.place(next)
  }
  // Another architecture than those listed: its numbers mean other calls.
  assembler.answer(actions['SCMP_ACT_KILL_PROCESS']!)
  const notifies = [seccomp.defaultAction, ...(seccomp.syscalls ?? []).map((rule) => rule.action)].includes(
    'SCMP_ACT_NOTIFY',
  )
  const flags = (seccomp.flags ?? []).reduce((sum, name) => sum | flagBits[name]!, 0)
  // TSYNC and a listener exclude each other; a container's first process has one thread anyway.
  return {
    flags: notifies ? (flags & ~1) | newListener : flags & ~32,
    filter: assembler.assemble(),
    listenerPath: notifies ? (seccomp.listenerPath ?? '') : '',
    listenerMetadata: seccomp.listenerMetadata ?? '',
  }
}

function problemsOf(seccomp: Seccomp): string[] {
  const problems: string[] = []
  const known = (what: string, value: string, all: readonly string[]) => {
    if (!all.includes(value)) problems.push(`linux.seccomp.${what}: unknown ${JSON.stringify(value)}`)
  }
  known('defaultAction', seccomp.defaultAction, seccompActions)
  if (seccomp.defaultAction === 'SCMP_ACT_NOTIFY')
    problems.push('linux.seccomp.defaultAction: may not be SCMP_ACT_NOTIFY')
  if (seccomp.defaultErrnoRet != null && !withValue.has(seccomp.defaultAction))
    problems.push('linux.seccomp.defaultErrnoRet: only with SCMP_ACT_ERRNO or SCMP_ACT_TRACE')
  for (const name of seccomp.architectures ?? []) known('architectures', name, seccompArchitectures)
  for (const name of seccomp.flags ?? []) known('flags', name, seccompFlags)
  const rules = seccomp.syscalls ?? []
  for (const [at, rule] of rules.entries()) {
    known(`syscalls.${at}.action`, rule.action, seccompActions)
    if (rule.errnoRet != null && !withValue.has(rule.action))
      problems.push(`linux.seccomp.syscalls.${at}.errnoRet: only with SCMP_ACT_ERRNO or SCMP_ACT_TRACE`)
    for (const arg of rule.args ?? []) known(`syscalls.${at}.args.op`, arg.op, seccompOperators)
  }
  if (rules.some((rule) => rule.action === 'SCMP_ACT_NOTIFY') && !seccomp.listenerPath)
    problems.push('linux.seccomp.listenerPath: missing for SCMP_ACT_NOTIFY')
  return problems
}

function resultOf(action: string, value: number | null | undefined): number {
  const base = actions[action]
  assert(base !== undefined, 'a known action')
  return withValue.has(action) ? (base | (value ?? EPERM)) >>> 0 : base
}

function rulesOf(seccomp: Seccomp, table: SyscallTable, bit: number, fallback: number): Rules {
  const numbers = syscallNumbers(table)
  const rules = new Map<number, Rule[]>()
  let last: number | undefined
  for (const entry of seccomp.syscalls ?? []) {
    const result = resultOf(entry.action, entry.errnoRet)
    for (const name of entry.names) {
      const number = numbers.get(name)
      // A call this architecture does not have is no mistake: profiles are written for many.
      if (number === undefined) continue
      last = Math.max(last ?? 0, number + bit)
      if (result === fallback) continue
      const here = rules.get(number + bit) ?? []
      rules.set(number + bit, here)
      for (const conditions of alternatives(entry.args ?? [])) here.push({ conditions, result })
    }
  }
  // What says something about every case of a call is beaten by nothing that comes after it.
  for (const list of rules.values()) {
    const always = list.findIndex((rule) => rule.conditions.length === 0)
    if (always >= 0) list.length = always + 1
  }
  return { byNumber: rules, last }
}

/** All conditions must hold, except that several on one argument are alternatives, as libseccomp's users take it. */
function alternatives(args: NonNullable<NonNullable<Seccomp['syscalls']>[number]['args']>): Condition[][] {
  const conditions = args.map((arg): Condition => {
    const { index, op } = arg as { index: number; op: Condition['op'] }
    return { index, op, value: BigInt(arg.value), valueTwo: BigInt(arg.valueTwo ?? 0) }
  })
  const repeated = new Set(conditions.map((condition) => condition.index)).size !== conditions.length
  return repeated ? conditions.map((condition) => [condition]) : [conditions]
}

/**
 * A binary search over ranges of numbers that lead to the same. Calls newer than any that the profile names are answered as a kernel
 * without them does, where others get an errno: programs then use what came before, as with runc.
 */
function decide(assembler: Assembler, { byNumber, last }: Rules, fallback: number): void {
  const ranges: { from: number; rules: Rule[] }[] = [{ from: 0, rules: [] }]
  const add = (from: number, rules: Rule[]) => {
    if (ranges.at(-1)!.from === from) ranges.pop()
    ranges.push({ from, rules })
  }
  for (const number of [...byNumber.keys()].sort((a, b) => a - b)) {
    add(number, byNumber.get(number)!)
    add(number + 1, [])
  }
  const refuses = actions['SCMP_ACT_ERRNO']!
  if (last !== undefined && (fallback & 0xffff0000) === refuses)
    add(last + 1, [{ conditions: [], result: refuses | ENOSYS }])
  const merged = ranges.filter((range, at) => at === 0 || key(range.rules) !== key(ranges[at - 1]!.rules))
  search(assembler, merged, fallback)
}

function key(rules: Rule[]): string {
  return rules
    .map(({ conditions, result }) =>
      [result, ...conditions.map((c) => `${c.index} ${c.op} ${c.value} ${c.valueTwo}`)].join(','),
    )
    .join(';')
}

function search(assembler: Assembler, ranges: { from: number; rules: Rule[] }[], fallback: number): void {
  if (ranges.length === 1) {
    answerRules(assembler, ranges[0]!.rules, fallback)
    return
  }
  const middle = ranges.length >> 1
  const right = assembler.label()
  assembler.unlessBelow(ranges[middle]!.from, right)
  search(assembler, ranges.slice(0, middle), fallback)
  assembler.place(right)
  search(assembler, ranges.slice(middle), fallback)
}

function answerRules(assembler: Assembler, rules: Rule[], fallback: number): void {
  for (const { conditions, result } of rules) {
    const next = assembler.label()
    for (const condition of conditions) testArgument(assembler, condition, next)
    assembler.answer(result)
    assembler.place(next)
    if (conditions.length === 0) return
  }
  assembler.answer(fallback)
}

/** Goes on where the condition holds, else to `otherwise`. Arguments have 64 bits, BPF's words 32. */
function testArgument(
  assembler: Assembler,
  { index, op, value, valueTwo }: Condition,
  otherwise: number,
): void {
  const high = (bits: bigint) => Number((bits >> 32n) & 0xffffffffn)
  const low = (bits: bigint) => Number(bits & 0xffffffffn)
  const holds = assembler.label()
  if (op === 'SCMP_CMP_EQ' || op === 'SCMP_CMP_MASKED_EQ') {
    const masked = op === 'SCMP_CMP_MASKED_EQ'
    const wanted = masked ? valueTwo : value
    assembler.loadArgument(index, 'high', masked ? high(value) : undefined)
    assembler.unlessEqual(high(wanted), otherwise)
    assembler.loadArgument(index, 'low', masked ? low(value) : undefined)
    assembler.unlessEqual(low(wanted), otherwise)
  } else if (op === 'SCMP_CMP_NE') {
    assembler.loadArgument(index, 'high')
    assembler.unlessEqual(high(value), holds)
    assembler.loadArgument(index, 'low')
    assembler.ifEqual(low(value), otherwise)
  } else {
    const greater = op === 'SCMP_CMP_GT' || op === 'SCMP_CMP_GE'
    assembler.loadArgument(index, 'high')
    assembler.ifAbove(high(value), greater ? holds : otherwise)
    assembler.unlessEqual(high(value), greater ? otherwise : holds)
    assembler.loadArgument(index, 'low')
    if (op === 'SCMP_CMP_GT') assembler.unlessAbove(low(value), otherwise)
    if (op === 'SCMP_CMP_GE') assembler.ifBelow(low(value), otherwise)
    if (op === 'SCMP_CMP_LT') assembler.unlessBelow(low(value), otherwise)
    if (op === 'SCMP_CMP_LE') assembler.ifAbove(low(value), otherwise)
  }
  assembler.place(holds)
}
