import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Fault } from '@kiln/service'
import { parseFaults } from './nemesis.ts'
import { verify } from './run.ts'
import { timelinePage } from './timeline.ts'

const help = `kiln kv verify: three members as processes under load and faults, then a check of all that clients were told
  --seed N          what happens, as far as it can be chosen (default 1)
  --nemesis LIST    of kill, pause, partition, disk (root), or none (default kill,pause,partition)
  --ops N           operations that are answered (default 100000)
  --clients N       at once (default 32)
  --seconds N       end after so long (default 900)
  --html FILE       a timeline, also if all is well (a failing run writes kiln-verify-SEED.html)
  --json            print JSON
Exit code 0: nothing was found; 1: something was; 2: usage.`

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    nemesis: { type: 'string', default: 'kill,pause,partition' },
    ops: { type: 'string', default: '100000' },
    clients: { type: 'string', default: '32' },
    seconds: { type: 'string', default: '900' },
    html: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(`${help}\n`)
  process.exit(0)
}
const [seed, operations, clients, secondsMax] = [values.seed, values.ops, values.clients, values.seconds].map(
  Number,
)
if (![seed, operations, clients, secondsMax].every((value) => Number.isSafeInteger(value) && value! > 0)) {
  process.stderr.write(`--seed, --ops, --clients and --seconds take positive whole numbers\n`)
  process.exit(2)
}
const end = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => end.abort())
try {
  const run = await verify({
    seed: seed!,
    operations: operations!,
    clients: clients!,
    secondsMax: secondsMax!,
    faultsMin: 0,
    faults: parseFaults(values.nemesis),
    signal: end.signal,
    note: (line) => void process.stderr.write(`${line}\n`),
  })
  const { violations } = run
  const summary =
    `seed ${seed}: ${run.acknowledged} operations answered, ${run.open} open, ${run.revisions} revisions, ` +
    `${run.faults.length} faults, ${(run.endedAt / 1000).toFixed(0)} s; ${violations.length} violations, ` +
    `${violations.filter(({ rule }) => rule === 'lost write').length} acknowledged writes lost, ` +
    `hashes ${new Set(run.hashes).size === 1 ? 'equal' : 'differ'}`
  const html = values.html ?? (violations.length > 0 ? `kiln-verify-${seed}.html` : undefined)
  if (html !== undefined)
    writeFileSync(html, timelinePage({ ...run, title: `kiln kv verify --seed ${seed}`, summary }))
  if (values.json) {
    const { acknowledged, open, revisions, faults, hashes } = run
    process.stdout.write(
      `${JSON.stringify({ seed, acknowledged, open, revisions, faults: faults.length, hashes, violations })}\n`,
    )
  } else {
    for (const { rule, text } of violations) process.stdout.write(`${rule}: ${text}\n`)
    process.stdout.write(`${summary}\n`)
  }
  if (html !== undefined) process.stderr.write(`timeline: ${html}\n`)
  process.exit(violations.length > 0 ? 1 : 0)
} catch (error) {
  if (!(error instanceof Fault)) throw error
  process.stderr.write(`${error.code}: ${error.message}\n`)
  process.exit(error.code === 'USAGE' ? 2 : 1)
}
