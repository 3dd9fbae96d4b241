import { describeIgnitionProblem, type IgnitionProblem } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** A config with errors; carries all of them, and is described by the first. */
export class ConfigInvalid extends Fault {
  readonly source: string
  readonly problems: IgnitionProblem[]

  constructor(source: string, problems: IgnitionProblem[]) {
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : ''
    super('CONFIG_INVALID', `${problems[0]?.message ?? 'invalid config'}${more}`, {
      remedy: 'correct the config',
    })
    this.name = 'ConfigInvalid'
    this.source = source
    this.problems = problems
  }

  /** One line for each problem. */
  lines(): string[] {
    return this.problems.map((problem) => `${this.source}: ${describeIgnitionProblem(problem)}`)
  }
}
