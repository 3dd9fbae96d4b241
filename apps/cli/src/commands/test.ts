import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { installWhatCan } from '../lab/host-setup.ts'
import { requireRepository } from '../programs.ts'
import { table } from '../progress/table.ts'
import type { CommandContext } from './context.ts'
import { readCount, type TestCount } from './test-count.ts'
import { type TestCommand, type TestPart, testStages } from './test-parts.ts'

export type PartOutcome = TestCount & { title: string; seconds: number; budgetSeconds: number }

/** Output of a part that is kept to be counted and shown; all of it is in a file. */
const outputBytesKept = 512 * 1024

/** `kiln test`: everything CI runs; all of it runs, whatever fails. Answers the exit code. */
export async function test(
  options: { fast: boolean; seeds: number },
  context: CommandContext,
): Promise<number> {
  const root = requireRepository()
  const started = performance.now()
  if (!options.fast) await installWhatCan(context)
  const outcomes: PartOutcome[] = []
  for (const lanes of testStages(root, process.execPath, options.seeds)) {
    const done = await Promise.all(
      lanes.map(async (lane, index) => {
        const own: PartOutcome[] = []
        for (const part of lane) {
          if (context.signal.aborted) break
          own.push(await runPart(part, { ...options, root, shown: index === 0 }, context))
        }
        return own
      }),
    )
    outcomes.push(...done.flat())
    if (context.signal.aborted) throw new Fault('CANCELLED', 'cancelled')
  }
  const seconds = (performance.now() - started) / 1000
  for (const line of closingLines(outcomes, seconds)) context.print(line)
  return outcomes.some(({ failed }) => failed > 0) || outcomes.every(({ passed }) => passed === 0) ? 1 : 0
}

/** The table of parts, why what was skipped was, what failed, what needed a second try, and the line that counts everything, which is the last. */
export function closingLines(outcomes: readonly PartOutcome[], seconds: number): string[] {
  const sum = (key: 'passed' | 'failed' | 'skipped'): number =>
    outcomes.reduce((total, outcome) => total + outcome[key], 0)
  const rows = outcomes.map((one) => [
    one.title,
    String(one.passed),
    String(one.failed),
    String(one.skipped),
    one.seconds.toFixed(0),
    `${one.budgetSeconds}${one.seconds > one.budgetSeconds ? ' exceeded' : ''}`,
  ])
  const reasons = outcomes.flatMap(({ title, skipped, reasons: own }) =>
    own.length === 0 && skipped > 0
      ? [`skipped: ${title}: ${skipped} gave no reason`]
      : own.map((reason) => `skipped: ${title}: ${reason}`),
  )
  return [
    '',
    table([['PART', 'PASSED', 'FAILED', 'SKIPPED', 'SECONDS', 'BUDGET'], ...rows]),
    `total ${seconds.toFixed(0)} s`,
    ...reasons,
    // A try that failed before one that passed is told below.
    ...outcomes.flatMap(({ title, failed, failures }) =>
      failed > 0 ? failures.map((one) => `failed: ${title}: ${one}`) : [],
    ),
    ...outcomes.flatMap(({ title, flaky }) => flaky.map((one) => `flaky: ${title}: ${one}`)),
    `${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`,
  ]
}

type PartOptions = {
  root: string
  fast: boolean
  /** Shown as it comes; of parts beside it the output is shown when they are done. */
  shown: boolean
}

async function runPart(part: TestPart, options: PartOptions, context: CommandContext): Promise<PartOutcome> {
  const base = { title: part.title, budgetSeconds: part.budgetSeconds }
  if (part.slow && options.fast) {
    return {
      ...base,
      seconds: 0,
      passed: 0,
      failed: 0,
      skipped: 1,
      reasons: ['left out by --fast'],
      failures: [],
      flaky: [],
    }
  }
  const heading = `\n=== ${part.title} (budget ${part.budgetSeconds} s)`
  if (options.shown) context.print(heading)
  const started = performance.now()
  const runs: { output: string; code: number | null }[] = []
  for (const command of part.commands) runs.push(await runTee(command, options, context))
  for (const command of part.cleanUp ?? []) await runTee(command, { ...options, shown: false }, context)
  const seconds = (performance.now() - started) / 1000
  const output = runs.map((run) => run.output).join('')
  const bad = runs.find(({ code }) => code !== 0)
  saveOutput(options.root, part.title, output)
  if (!options.shown) context.print(`${heading}\n${output.trimEnd()}`)
  const count = readCount(output, bad ? (bad.code ?? 1) : 0)
  context.print(
    `=== ${part.title}: ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped in ${seconds.toFixed(0)} s`,
  )
  return { ...base, seconds, ...count }
}

function saveOutput(root: string, title: string, output: string): void {
  const folder = join(root, 'dist/test')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, `${title}.log`), output)
}

/** Runs a command, keeping the end of its output and showing it as it comes. Ctrl-C ends it politely. */
function runTee(
  { command, args }: TestCommand,
  { root, shown }: PartOptions,
  context: CommandContext,
): Promise<{ output: string; code: number | null }> {
  return new Promise((resolve) => {
    const child: ChildProcess = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...context.environment, FORCE_COLOR: '0', NO_COLOR: '1', CI: '1', KILN_TEST_RETRY: '1' },
    })
    let output = ''
    const keep = (chunk: string): void => {
      if (shown) process.stdout.write(chunk)
      output = (output + chunk).slice(-outputBytesKept)
    }
    const stop = (): void => void child.kill('SIGTERM')
    context.signal.addEventListener('abort', stop, { once: true })
    for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', keep)
    child.once('error', (error) => {
      keep(`${command}: ${error.message}\n`)
      resolve({ output, code: 127 })
    })
    child.once('close', (code) => {
      context.signal.removeEventListener('abort', stop)
      resolve({ output, code })
    })
  })
}
