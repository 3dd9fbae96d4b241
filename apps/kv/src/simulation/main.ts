import { parseArgs } from 'node:util'
import { createLog } from '@kiln/service'
import { runSeed } from './run.ts'

/**
 * Runs many seeds: `node apps/kv/src/simulation/main.ts --seeds 200 --ticks 5000`, or one that failed, with its log:
 * `--seed 17 --verbose`. Ends with a line that counts.
 */
const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    first: { type: 'string', default: '1' },
    ticks: { type: 'string', default: '5000' },
    seed: { type: 'string' },
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
const log = values.verbose ? createLog('simulation', 'debug') : undefined
const began = performance.now()
const cpuBefore = process.cpuUsage()
const totals: Record<string, number> = {}
const failed: number[] = []
for (let seed = first; seed < first + count; seed++) {
  const result = await runSeed({ seed, ticks, ignoreSync: values['ignore-sync'], log })
  for (const [name, value] of Object.entries(result.figures)) totals[name] = (totals[name] ?? 0) + value
  if (values.verbose) process.stdout.write(`${JSON.stringify(result.figures)}\n`)
  if (result.breaches.length === 0) continue
  failed.push(seed)
  process.stdout.write(`seed ${seed} failed:\n`)
  for (const breach of result.breaches.slice(0, 5)) {
    process.stdout.write(`  tick ${breach.tick} ${breach.node}: ${breach.what}\n`)
  }
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
