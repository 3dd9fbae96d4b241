import { Fault } from '@kiln/service'
import { Listr } from 'listr2'

/** What a step can say while it runs. */
export type StepReport = {
  /** A sentence about what happens now. */
  note(text: string): void
  /** Something that happened, for the log of a run without a terminal. */
  event(text: string): void
  /** On a terminal, a block of lines that replaces the one before. */
  live(lines: readonly string[]): void
}

export type Step = {
  title: string
  /** Returns what to add to the title when it is done. */
  run(report: StepReport): Promise<string | undefined>
}

/**
 * Runs steps one after the other, live on a terminal, as plain lines to `stream` otherwise. The first failure ends it, and
 * so does `signal`: no step begins after it, and what a step says because of it is not told.
 */
export async function runSteps(
  steps: readonly Step[],
  out: { live: boolean; stream: NodeJS.WritableStream; signal: AbortSignal },
): Promise<void> {
  const cancelled = (): Fault => new Fault('CANCELLED', 'cancelled')
  const guarded = steps.map(
    ({ title, run }): Step => ({
      title,
      run: async (report) => {
        if (out.signal.aborted) throw cancelled()
        try {
          return await run(report)
        } catch (error) {
          throw out.signal.aborted ? cancelled() : error
        }
      },
    }),
  )
  if (out.live) await runLive(guarded)
  else await runPlain(guarded, out.stream)
}

async function runLive(steps: readonly Step[]): Promise<void> {
  const list = new Listr(
    steps.map(({ title, run }) => ({
      title,
      task: async (_context, task): Promise<void> => {
        const note = await run({
          note: (text) => {
            task.output = text
          },
          event: () => undefined,
          live: (lines) => {
            task.output = lines.join('\n')
          },
        })
        task.title = note ? `${title}: ${note}` : title
      },
      rendererOptions: { outputBar: 12 },
    })),
    { concurrent: false, registerSignalListeners: false, rendererOptions: { showErrorMessage: false } },
  )
  await list.run()
}

async function runPlain(steps: readonly Step[], stream: NodeJS.WritableStream): Promise<void> {
  const started = performance.now()
  const say = (text: string): void => {
    const seconds = Math.round((performance.now() - started) / 1000)
    stream.write(`${seconds.toString().padStart(4)} s  ${text}\n`)
  }
  for (const { title, run } of steps) {
    say(title)
    const indented = (text: string): void => say(`  ${text}`)
    const result = await run({ note: indented, event: indented, live: () => undefined })
    if (result) say(`  ${result}`)
  }
}
