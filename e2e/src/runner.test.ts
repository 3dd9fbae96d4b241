import { expect, test } from 'vitest'
import { closingLines, type StoryResult } from './report.ts'
import { type RunnerPorts, type RunOptions, runStories, type Stage } from './runner.ts'
import type { Story, StoryContext } from './story.ts'

const story = (name: string, more: Partial<Story> = {}): Story => ({
  name,
  summary: `about ${name}`,
  budgetSeconds: 10,
  timeoutSeconds: 20,
  needs: [],
  run: async () => undefined,
  ...more,
})

/** A host without time or machines: stories advance its clock themselves. */
function host(more: Partial<RunnerPorts> = {}) {
  const seen = { ended: [] as string[], fixtures: [] as string[], results: [] as StoryResult[] }
  const timers: { atMs: number; fire: () => void }[] = []
  let now = 0
  const ports: RunnerPorts = {
    nowMs: () => now,
    unmet: async () => undefined,
    reserve: () => () => undefined,
    prepare: async (one, signal): Promise<Stage> => ({
      context: { signal } as unknown as StoryContext,
      figures: () => [],
      badness: () => [],
      end: async (failed) => void seen.ended.push(`${one.name} ${failed ? 'failed' : 'passed'}`),
    }),
    endFixture: async (name) => void seen.fixtures.push(name),
    keepOutput: async () => undefined,
    started: () => undefined,
    finished: (result) => void seen.results.push(result),
    timer: (ms, fire) => {
      const timer = { atMs: now + ms, fire }
      timers.push(timer)
      return () => void timers.splice(timers.indexOf(timer), 1)
    },
    ...more,
  }
  const advance = (ms: number): void => {
    now += ms
    for (const timer of timers.filter(({ atMs }) => atMs <= now)) timer.fire()
  }
  return { ports, seen, advance }
}

const options = (more: Partial<RunOptions> = {}): RunOptions => ({
  quarantine: [],
  cancelled: new AbortController().signal,
  ...more,
})

const kinds = (results: readonly StoryResult[]): string[] => results.map(({ outcome }) => outcome.kind)
const reason = (result: StoryResult | undefined): string | undefined =>
  result && 'reason' in result.outcome ? result.outcome.reason : undefined

test('a story that throws has failed, with what it threw; the next one runs', async () => {
  const { ports, seen } = host()
  const bad = story('bad', { run: () => Promise.reject(new Error('no leader')) })
  const results = await runStories([bad, story('good')], options(), ports)
  expect(kinds(results)).toEqual(['failed', 'passed'])
  expect(reason(results[0])).toBe('no leader')
  expect(seen.ended).toEqual(['bad failed', 'good passed'])
})

test('a story whose console has a bad line has failed', async () => {
  const { ports } = host()
  const prepare: RunnerPorts['prepare'] = async (one, signal) => ({
    ...(await host().ports.prepare(one, signal)),
    badness: () => [
      { console: 'node1', kind: 'kernel panic', line: 'Kernel panic - not syncing: x' },
      { console: 'node2', kind: 'failed unit', line: 'y' },
    ],
  })
  const [result] = await runStories([story('one')], options(), { ...ports, prepare })
  expect(reason(result)).toBe(
    'kernel panic on the console of node1: Kernel panic - not syncing: x (and 1 more lines)',
  )
})

test('a story that is not done in time is told to end and has failed', async () => {
  const { ports, advance } = host()
  let told = false
  const slow = story('slow', {
    run: ({ signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          told = true
          reject(new Error('ended'))
        })
        queueMicrotask(() => advance(20_000))
      }),
  })
  const [result] = await runStories([slow], options(), ports)
  expect(told).toBe(true)
  expect(reason(result)).toBe('not done within 20 s')
  expect(result?.outcome).toMatchObject({ kind: 'failed', seconds: 20 })
})

test('a story that hears nothing when its time is over does not stop the run', async () => {
  const { ports, advance } = host()
  const deaf = story('deaf', {
    run: () => {
      queueMicrotask(() => advance(20_000))
      setImmediate(() => advance(20_000))
      return new Promise(() => undefined)
    },
  })
  const results = await runStories([deaf, story('next')], options(), ports)
  expect(kinds(results)).toEqual(['failed', 'passed'])
})

test('stories that no longer fit the budget are skipped, shorter ones still run', async () => {
  const { ports, advance } = host()
  const long = story('long', { run: async () => advance(55_000) })
  const results = await runStories(
    [long, story('late', { budgetSeconds: 10 }), story('short', { budgetSeconds: 4 })],
    options({ budgetMs: 60_000 }),
    ports,
  )
  expect(kinds(results)).toEqual(['passed', 'skipped', 'passed'])
  expect(reason(results[1])).toBe("5 s of the run's budget are left, it needs 10 s")
})

test('quarantine, a missing need and short memory are reasons to skip', async () => {
  const { ports } = host({
    unmet: async ({ name }) => (name === 'needy' ? 'needs root' : undefined),
    reserve: ({ name }) => (name === 'large' ? undefined : () => undefined),
  })
  const quarantine = [{ story: 'shaky', reason: 'fails now and then', since: '2026-01-02' }]
  const plan = [story('shaky'), story('needy'), story('large', { memoryMiB: 9000 })]
  const results = await runStories(plan, options({ quarantine }), ports)
  expect(results.map(reason)).toEqual([
    'in quarantine since 2026-01-02: fails now and then',
    'needs root',
    'needs 9000 MiB of memory for its machines',
  ])
})

test('a shared cluster ends after its last story, and at once after one that failed', async () => {
  const { ports, seen } = host()
  const of = (name: string, run: Story['run']): Story => story(name, { fixture: 'one-machine', run })
  const order: string[] = []
  const noting = (name: string) => async (): Promise<void> =>
    void order.push(`${name} after ${seen.fixtures.length}`)
  const plan = [
    of('a', noting('a')),
    of('b', () => Promise.reject(new Error('x'))),
    of('c', noting('c')),
    story('d', { run: noting('d') }),
  ]
  await runStories(plan, options(), ports)
  expect(order).toEqual(['a after 0', 'c after 1', 'd after 2'])
})

test('when the run is ended the rest is skipped', async () => {
  const { ports } = host()
  const cancelled = new AbortController()
  const ending = story('ending', {
    run: async ({ signal }) => {
      cancelled.abort()
      signal.throwIfAborted()
    },
  })
  const results = await runStories([ending, story('rest')], options({ cancelled: cancelled.signal }), ports)
  expect(kinds(results)).toEqual(['failed', 'skipped'])
  expect(reason(results[1])).toBe('the run was ended')
})

test('memory is given back after a story, also after one that failed', async () => {
  let held = 0
  const { ports } = host({
    reserve: () => {
      held++
      return () => void held--
    },
  })
  await runStories([story('a', { run: () => Promise.reject(new Error('x')) }), story('b')], options(), ports)
  expect(held).toBe(0)
})

test('with retries a failed story runs again on a fresh fixture and is told as flaky', async () => {
  const { ports, seen } = host()
  let tries = 0
  const shaky = story('shaky', {
    fixture: 'one-machine',
    run: async () => {
      if (++tries === 1) throw new Error('the console was late')
    },
  })
  const [result] = await runStories([shaky], options({ retries: 1 }), ports)
  expect(result?.outcome).toMatchObject({ kind: 'passed', flaky: 'the console was late' })
  expect(seen.fixtures).toEqual(['one-machine', 'one-machine'])
  expect(closingLines([result!])[0]).toBe('flaky shaky: the console was late')
})

test('a story that fails every time has failed, and without retries it runs once', async () => {
  for (const [retries, tries] of [
    [1, 2],
    [0, 1],
  ] as const) {
    let runs = 0
    const bad = story('bad', {
      run: async () => {
        runs++
        throw new Error('no')
      },
    })
    expect(kinds(await runStories([bad], options({ retries }), host().ports))).toEqual(['failed'])
    expect(runs).toBe(tries)
  }
})
