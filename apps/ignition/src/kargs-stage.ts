import type { IgnitionConfig } from '@kiln/schemas'
import { kargsHelper } from './required-tools.ts'
import type { Run } from './run.ts'

/**
 * Lets the distribution's helper change the kernel's arguments (Ignition, "kernelArguments"). It reboots the machine
 * when it changed anything; this stage then never returns.
 */
export async function runKargs({ kernelArguments }: IgnitionConfig, run: Run): Promise<void> {
  const { shouldExist = [], shouldNotExist = [] } = kernelArguments ?? {}
  if (shouldExist.length === 0 && shouldNotExist.length === 0) return
  await run.command(kargsHelper, [
    ...shouldExist.flatMap((argument) => ['--should-exist', argument]),
    ...shouldNotExist.flatMap((argument) => ['--should-not-exist', argument]),
  ])
  run.reporter.say(`kargs: ${[...shouldExist, ...shouldNotExist.map((each) => `not ${each}`)].join(', ')}`)
}
