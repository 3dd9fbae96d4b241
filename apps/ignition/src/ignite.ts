import { checkState } from './config-cache.ts'
import { describeFailure } from './failure.ts'
import { installs } from './options.ts'
import type { Run } from './run.ts'
import { runAll, runStage } from './stages.ts'

/**
 * Runs the stage the options name, or all of them. 0 when done, 1 when a stage failed, 3 when none could begin: that is then
 * reported, and the last line said is the reason.
 */
export async function ignite(run: Run): Promise<number> {
  const wanted = run.options.stage
  let stage: string = wanted
  let hasBegun = false
  try {
    if (wanted !== 'all') checkState(run.options)
    hasBegun = true
    if (wanted === 'all') {
      await runAll(run, (name) => {
        stage = name
      })
    } else await runStage(wanted, run)
    return 0
  } catch (error) {
    const { failure, lines } = describeFailure(stage, error, { installing: installs(run.options) })
    await run.reporter.failed(failure)
    for (const line of lines) run.reporter.say(line)
    return hasBegun ? 1 : 3
  }
}
