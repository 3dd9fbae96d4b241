import type { Clock } from '@kiln/service'
import type { RunCommand } from './commands.ts'
import type { Devices } from './devices.ts'
import type { Fetcher, FetchSettings } from './fetch-resource.ts'
import type { KernelArguments } from './kernel-arguments.ts'
import type { Options } from './options.ts'
import type { Reporter } from './reporter.ts'
import type { HasProgram } from './required-tools.ts'

/** What every stage works with. */
export type Run = {
  options: Options
  kernel: KernelArguments
  reporter: Reporter
  command: RunCommand
  hasProgram: HasProgram
  devices: Devices
  clock: Clock
  /** Wall clock, for the result file and the markers. */
  now(): Date
  /** Day of a password's last change (shadow(5)). */
  accountDate(): Date
  fetcher: Fetcher
  settings: FetchSettings
  /** Id for reports and enrolment, when something told it. */
  machine: string | undefined
  /** Whether owners of files can be set. */
  privileged: boolean
  /** Partitions that nothing may be written to: they are kept. */
  kept?: ReadonlySet<string>
  /** Messages for a journal that is not there yet. */
  untold: string[]
  /** Told after each action that changed something; the simulation cuts the power there. */
  acted(what: string): void
  /** Says a warning once. */
  warn(line: string): void
}
