import { describeError } from '@kiln/service'
import { lastUse } from './plan.ts'
import { type Quarantine, quarantineReason } from './quarantine.ts'
import type { Figure, Outcome, StoryResult } from './report.ts'
import type { FixtureName, Story, StoryContext } from './story.ts'

/** One story under way: what it may use, and what must happen when it ends. */
export type Stage = {
  context: StoryContext
  figures(): readonly Figure[]
  /** Bad lines on the consoles that were watched. */
  badness(allowed: readonly string[]): readonly { console: string; kind: string; line: string }[]
  /** Closes what the story opened and saves what it said; on a failure also the logs around it. */
  end(failed: boolean): Promise<void>
}

/** Reason of a story's signal when somebody ended the whole run. */
export const runEnded = new Error('the run was ended')

/** What the runner needs of its surroundings; tests have their own. */
export type RunnerPorts = {
  nowMs(): number
  /** Why this host cannot run the story, if it cannot. */
  unmet(story: Story): Promise<string | undefined>
  /** Promises the story's memory; answers how to give it back. */
  reserve(story: Story): (() => void) | undefined
  prepare(story: Story, signal: AbortSignal): Promise<Stage>
  /** Ends the machines of a fixture, if they run. */
  endFixture(name: FixtureName): Promise<void>
  started(story: Story): void
  finished(result: StoryResult): void
  /** Puts the output of a failed try aside before the story is tried again. */
  keepOutput(story: Story): Promise<void>
  /** Calls `fire` after a time; answers how to call it off. */
  timer(ms: number, fire: () => void): () => void
}

export type RunOptions = {
  quarantine: Quarantine
  budgetMs?: number | undefined
  cancelled: AbortSignal
  /** Tries after a failure. A story that needs one is reported as flaky, never silently. */
  retries?: number
}

/** Runs the stories one after the other. A story that failed takes its fixture with it: the next one gets a fresh one. */
export async function runStories(
  plan: readonly Story[],
  options: RunOptions,
  ports: RunnerPorts,
): Promise<StoryResult[]> {
  const began = ports.nowMs()
  const results: StoryResult[] = []
  for (const [index, story] of plan.entries()) {
    const attempt = async (): Promise<Outcome> => {
      const leftMs = options.budgetMs === undefined ? undefined : options.budgetMs - (ports.nowMs() - began)
      return options.cancelled.aborted
        ? skipped('the run was ended')
        : await runOrSkip(story, leftMs, options, ports)
    }
    const outcome = await tryAgain(story, await attempt(), attempt, options, ports)
    const result = { story: story.name, budgetSeconds: story.budgetSeconds, outcome }
    results.push(result)
    ports.finished(result)
    if (story.fixture && (outcome.kind === 'failed' || lastUse(plan, index) || options.cancelled.aborted)) {
      await ports.endFixture(story.fixture)
    }
  }
  return results
}

/** Runs a failed story again on fresh machines; where the second try cannot run, the first one's failure stands. */
async function tryAgain(
  story: Story,
  first: Outcome,
  attempt: () => Promise<Outcome>,
  options: RunOptions,
  ports: RunnerPorts,
): Promise<Outcome> {
  let outcome = first
  for (let left = options.retries ?? 0; left > 0 && outcome.kind === 'failed'; left--) {
    if (options.cancelled.aborted) break
    ports.finished({ story: story.name, budgetSeconds: story.budgetSeconds, outcome })
    await ports.keepOutput(story)
    if (story.fixture) await ports.endFixture(story.fixture)
    const next = await attempt()
    if (next.kind === 'skipped') break
    outcome = next.kind === 'passed' ? { ...next, flaky: outcome.reason } : next
  }
  return outcome
}

const skipped = (reason: string): Outcome => ({ kind: 'skipped', reason })

async function runOrSkip(
  story: Story,
  leftMs: number | undefined,
  options: RunOptions,
  ports: RunnerPorts,
): Promise<Outcome> {
  const quarantined = quarantineReason(options.quarantine, story.name)
  if (quarantined) return skipped(quarantined)
  if (leftMs !== undefined && leftMs < story.budgetSeconds * 1000) {
    const left = Math.max(0, Math.round(leftMs / 1000))
    return skipped(`${left} s of the run's budget are left, it needs ${story.budgetSeconds} s`)
  }
  const unmet = await ports.unmet(story)
  if (unmet) return skipped(unmet)
  const release = ports.reserve(story)
  if (!release) return skipped(`needs ${story.memoryMiB ?? 0} MiB of memory for its machines`)
  ports.started(story)
  try {
    return await runOne(story, options.cancelled, ports)
  } finally {
    release()
  }
}

async function runOne(story: Story, cancelled: AbortSignal, ports: RunnerPorts): Promise<Outcome> {
  const began = ports.nowMs()
  const ended = new AbortController()
  const cancel = (): void => ended.abort(runEnded)
  cancelled.addEventListener('abort', cancel, { once: true })
  const stage = await ports.prepare(story, ended.signal)
  let reason: string | undefined
  let callOff = (): void => undefined
  const late = new Promise<never>((_resolve, reject) => {
    callOff = ports.timer(story.timeoutSeconds * 1000, () => {
      // Rejected first: a story that hears of the end throws something less telling.
      reject(new Error(`not done within ${story.timeoutSeconds} s`))
      ended.abort()
    })
  })
  late.catch(() => undefined)
  const running = story.run(stage.context)
  try {
    await Promise.race([running, late])
  } catch (error) {
    reason = describeError(error)
    ended.abort()
    // What the story still does is over before its machines are taken away.
    await Promise.race([running.catch(() => undefined), grace(ports)])
  } finally {
    callOff()
    cancelled.removeEventListener('abort', cancel)
  }
  const bad = stage.badness(story.allowedBadness ?? [])
  const [first] = bad
  if (first && reason === undefined) {
    const more = bad.length > 1 ? ` (and ${bad.length - 1} more lines)` : ''
    reason = `${first.kind} on the console of ${first.console}: ${first.line}${more}`
  }
  try {
    await stage.end(reason !== undefined)
  } catch (error) {
    reason ??= `cleaning up: ${describeError(error)}`
  }
  const seconds = (ports.nowMs() - began) / 1000
  const figures = stage.figures()
  return reason === undefined
    ? { kind: 'passed', seconds, figures }
    : { kind: 'failed', seconds, figures, reason }
}

const unwindMs = 20_000

const grace = (ports: RunnerPorts): Promise<void> =>
  new Promise((resolve) => void ports.timer(unwindMs, resolve))
