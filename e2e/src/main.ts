import { existsSync, mkdirSync } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { describeError, Fault } from '@kiln/service'
import { Fixtures, fixtureMemoryMiB } from './fixtures.ts'
import { machineMemoryMiB, unmetNeed } from './host-needs.ts'
import { repositoryRoot } from './kiln-command.ts'
import { MemoryShelf } from './memory-shelf.ts'
import { planLanes, planRun } from './plan.ts'
import { readQuarantine } from './quarantine.ts'
import { anyFailed, closingLines, resultLine, type StoryResult } from './report.ts'
import { type RunnerPorts, runStories } from './runner.ts'
import { prepareStage } from './stage.ts'
import { stories } from './stories.ts'
import type { FixtureName, Story } from './story.ts'

const usage = `Stories in virtual machines, as an operator would tell them.

usage: node e2e/src/main.ts [options] [story...]

  --list             print the stories
  --budget MINUTES   skip stories that no longer fit
  --state DIR        folder for shared clusters (default: dist/e2e/clusters)
  --retries N        try a failed story again on fresh machines; it is then reported as flaky
  --keep             leave shared clusters running for the next run
  --lanes N          stories of one machine side by side: 1 or 2 (default: 2 on a host with two cores)
  --verbose          print what each story says as it happens
  --help

Output of each story: dist/e2e/STORY/. Stories in quarantine: e2e/quarantine.json.
`

const print = (line: string): void => void process.stdout.write(line + '\n')

/** Runs what was asked for; answers the exit code. */
async function main(argv: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: argv,
    allowPositionals: true,
    options: {
      list: { type: 'boolean', default: false },
      budget: { type: 'string' },
      state: { type: 'string' },
      keep: { type: 'boolean', default: false },
      retries: { type: 'string', default: '0' },
      lanes: { type: 'string', default: availableParallelism() > 1 ? '2' : '1' },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(usage)
    return 0
  }
  const plan = planRun(stories, positionals)
  const quarantine = readQuarantine(new URL('../quarantine.json', import.meta.url))
  if (values.list) {
    for (const { name, budgetSeconds, fixture, summary } of plan) {
      print(
        `${name.padEnd(16)} ${budgetSeconds.toString().padStart(4)} s  ${(fixture ?? '').padEnd(14)}  ${summary}`,
      )
    }
    return 0
  }
  for (const { story, since, reason } of quarantine)
    print(`in quarantine: ${story}, since ${since}: ${reason}`)

  const outDir = join(repositoryRoot, 'dist/e2e')
  mkdirSync(outDir, { recursive: true })
  const fixtures = new Fixtures({
    folder: values.state ?? join(outDir, 'clusters'),
    logPath: join(outDir, 'kiln.log'),
    keep: values.keep,
  })
  const memory = new MemoryShelf(machineMemoryMiB())
  const host = {
    root: process.getuid?.() === 0,
    searchPath: process.env['PATH'] ?? '',
    exists: existsSync,
  }
  const held = new Map<FixtureName, () => void>()
  const reserve = (story: Story): (() => void) | undefined => {
    const { fixture } = story
    if (fixture && !held.has(fixture)) {
      const release = memory.reserve(fixtureMemoryMiB(fixture))
      if (!release) return undefined
      held.set(fixture, release)
    }
    return memory.reserve(story.memoryMiB ?? 0)
  }
  const ports: RunnerPorts = {
    nowMs: () => performance.now(),
    unmet: (story) => unmetNeed(story, host, print),
    reserve,
    prepare: async (story, signal) =>
      prepareStage(story, signal, {
        outDir,
        fixtures,
        echo: values.verbose ? print : () => undefined,
        nowMs: () => performance.now(),
      }),
    async endFixture(name) {
      await fixtures.end(name)
      held.get(name)?.()
      held.delete(name)
    },
    async keepOutput({ name }) {
      const aside = join(outDir, `${name}.first`)
      await rm(aside, { recursive: true, force: true })
      await rename(join(outDir, name), aside).catch(() => print(`         no output of ${name} to keep`))
    },
    started: (story) => print(`         ${story.name}: ${story.summary}`),
    finished: (result) => print(resultLine(result)),
    timer: (ms, fire) => {
      const timer = setTimeout(fire, ms)
      return () => clearTimeout(timer)
    },
  }
  const cancelled = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => cancelled.abort())
  try {
    const began = performance.now()
    const budget = budgetMs(values.budget)
    const run = (lane: readonly Story[]): Promise<StoryResult[]> =>
      runStories(
        lane,
        {
          quarantine,
          budgetMs: budget === undefined ? undefined : budget - (performance.now() - began),
          cancelled: cancelled.signal,
          retries: numberIn('--retries', values.retries, 0, 3),
        },
        ports,
      )
    const lanes = planLanes(plan, numberIn('--lanes', values.lanes, 1, 2))
    const results = (await Promise.all(lanes.beside.map(run))).flat()
    results.push(...(await run(lanes.alone)))
    for (const line of closingLines(results)) print(line)
    return anyFailed(results) || cancelled.signal.aborted ? 1 : 0
  } finally {
    await fixtures.endAll()
  }
}

function budgetMs(minutes: string | undefined): number | undefined {
  if (minutes === undefined) return undefined
  const value = Number(minutes)
  if (!(value > 0)) throw new Fault('USAGE', '--budget is a number of minutes')
  return value * 60_000
}

function numberIn(flag: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < min || value > max)
    throw new Fault('USAGE', `${flag} is ${min} to ${max}`)
  return value
}

try {
  // Not left to the event loop: a connection that a failed story forgot must not keep the run alive.
  process.exit(await main(process.argv.slice(2)))
} catch (error) {
  const isUsage =
    (error instanceof Fault && ['USAGE', 'STORY_UNKNOWN'].includes(error.code)) ||
    (error instanceof TypeError && 'code' in error)
  process.stderr.write(`e2e: ${describeError(error)}\n`)
  process.exit(isUsage ? 2 : 1)
}
