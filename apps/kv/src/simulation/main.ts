import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { createLog } from '@kiln/service'
import { runCore } from './core-run.ts'
import { type Mutation, mutations } from './mutations.ts'
import { runSeed } from './run.ts'
import { runWatch } from './watch-run.ts'

/**
 * Runs many seeds: `node apps/kv/src/simulation/main.ts --seeds 200 --ticks 5000`, or one that failed, with its log:
 * `--seed 17 --verbose`. `--core` runs the core alone, `--watch` stores and their watchers, a tick being one step; in even seeds values leave memory. `--mutations` checks the checks: each of a list of bugs must be found. Ends with a line that counts.
 */
const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    first: { type: 'string', default: '1' },
    ticks: { type: 'string', default: '5000' },
    seed: { type: 'string' },
    'until-failure': { type: 'boolean', default: false },
    mutations: { type: 'boolean', default: false },
    core: { type: 'boolean', default: false },
    watch: { type: 'boolean', default: false },
    mutation: { type: 'string' },
    'lease-reads': { type: 'boolean' },
    hectic: { type: 'boolean' },
    'ignore-sync': { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
})
const ticks = Number(values.ticks)
const first = Number(values.seed ?? values.first)
const count = values.seed === undefined ? Number(values.seeds) : 1
if (![ticks, first, count].every((value) => Number.isInteger(value) && value > 0)) {
  process.stderr.write('--seeds, --ticks, --first and --seed take positive whole numbers\n')
  process.exit(2)
}
if (values.mutations || values.mutation !== undefined) {
  const chosen = mutations.filter(({ name }) => (values.mutation ?? name) === name)
  if (chosen.length === 0) process.stderr.write(`there is no mutation ${values.mutation}\n`)
  process.exit(chosen.length === 0 ? 2 : checkMutations(chosen))
}
if (values.core) process.exit(checkSteps(runCore))
if (values.watch) process.exit(checkSteps(runWatch))
const log = values.verbose ? createLog('simulation', 'debug') : undefined
const began = performance.now()
const cpuBefore = process.cpuUsage()
const totals: Record<string, number> = {}
const failed: number[] = []
for (let seed = first; seed < first + count; seed++) {
  const result = await runSeed({
    seed,
    ticks,
    ignoreSync: values['ignore-sync'],
    leaseReads: values['lease-reads'],
    hectic: values.hectic,
    log,
  })
  for (const [name, value] of Object.entries(result.figures)) totals[name] = (totals[name] ?? 0) + value
  if (values.verbose) process.stdout.write(`${JSON.stringify(result.figures)}\n`)
  if (result.breaches.length === 0) continue
  failed.push(seed)
  process.stdout.write(`seed ${seed} failed:\n`)
  for (const breach of result.breaches.slice(0, 5)) {
    process.stdout.write(`  tick ${breach.tick} ${breach.node}: ${breach.what}\n`)
  }
  if (values['until-failure']) break
}
const cpu = process.cpuUsage(cpuBefore)
process.stdout.write(`${JSON.stringify(totals)}\n`)
process.stdout.write(
  `${count} seeds of ${ticks} ticks in ${((performance.now() - began) / 1000).toFixed(1)} s, ` +
    `${((cpu.user + cpu.system) / 1e6).toFixed(1)} s of CPU\n`,
)
if (failed.length > 0) process.stdout.write(`failing seeds: ${failed.join(' ')}\n`)
process.stdout.write(`${count - failed.length} passed, ${failed.length} failed\n`)
process.exit(failed.length > 0 ? 1 : 0)

type StepRun = (options: { seed: number; steps: number }) => {
  breach: string | undefined
  figures: Record<string, number>
}

/** A part alone, in random steps. Answers the exit code. */
function checkSteps(run: StepRun): number {
  const before = process.cpuUsage()
  const sums: Record<string, number> = {}
  let breaches = 0
  for (let seed = first; seed < first + count; seed++) {
    const { breach, figures } = run({ seed, steps: ticks })
    for (const [name, value] of Object.entries(figures)) sums[name] = (sums[name] ?? 0) + value
    if (breach === undefined) continue
    breaches++
    process.stdout.write(`seed ${seed} failed:\n  ${breach}\n`)
    if (values['until-failure']) break
  }
  const { user, system } = process.cpuUsage(before)
  process.stdout.write(`${JSON.stringify(sums)}\n`)
  process.stdout.write(`${count} seeds of ${ticks} steps, ${((user + system) / 1e6).toFixed(1)} s of CPU\n`)
  process.stdout.write(`${count - breaches} passed, ${breaches} failed\n`)
  return breaches > 0 ? 1 : 0
}

/** Runs seeds with each bug until one fails. Answers the exit code. */
function checkMutations(chosen: readonly Mutation[]): number {
  let found = 0
  for (const { name, what, file, run } of chosen) {
    const hook = pathToFileURL(join(import.meta.dirname, 'mutate.ts'))
    hook.searchParams.set('name', name)
    const began = performance.now()
    const runs = run
      ? `--${run} --first ${first} --seeds ${count * 5} --ticks 6000`
      : `--hectic --first ${first} --seeds ${count} --ticks ${ticks}`
    const lease = name.startsWith('lease') ? ['--lease-reads'] : []
    const { stdout } = spawnSync(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        `--import=${hook.href}`,
        join(import.meta.dirname, 'main.ts'),
        ...runs.split(' '),
        '--until-failure',
        ...lease,
      ],
      { encoding: 'utf8' },
    )
    const [, seed, breach] = /^seed (\d+) failed:\n(.*)$/m.exec(stdout) ?? []
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    if (seed !== undefined) found++
    const outcome = seed === undefined ? 'NOT FOUND' : `found by seed ${seed}`
    process.stdout.write(`mutation ${name} (${what}, ${file}): ${outcome} in ${seconds} s\n`)
    if (seed !== undefined) process.stdout.write(`${breach?.slice(0, 160)}\n`)
  }
  process.stdout.write(`${found} passed, ${chosen.length - found} failed\n`)
  return found === chosen.length ? 0 : 1
}
