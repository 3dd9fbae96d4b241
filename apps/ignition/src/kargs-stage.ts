import { type IgnitionConfig, reservedArguments } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { installs } from './options.ts'
import { kargsHelper } from './required-tools.ts'
import type { Run } from './run.ts'

/**
 * Changes the kernel's arguments. Where Kiln is installed they are written into the boot entries (`esp.ts`); elsewhere the
 * distribution's helper changes them (Ignition, "kernelArguments"), and reboots the machine when it changed anything: this
 * stage then never returns.
 */
export async function runKargs({ kernelArguments }: IgnitionConfig, run: Run): Promise<void> {
  const { shouldExist = [], shouldNotExist = [] } = kernelArguments ?? {}
  if (shouldExist.length === 0 && shouldNotExist.length === 0) return
  if (installs(run.options)) {
    const reserved = reservedArguments({ shouldExist })
    if (reserved.length === 0) return
    const fault = new Fault(
      'KERNEL_ARGUMENT_REFUSED',
      `${reserved.join(', ')}: only Kiln sets such arguments`,
      {
        remedy: 'leave out arguments that begin with "kiln."',
      },
    )
    throw Object.assign(fault, { path: '$.kernelArguments.shouldExist' })
  }
  await run.command(kargsHelper, [
    ...shouldExist.flatMap((argument) => ['--should-exist', argument]),
    ...shouldNotExist.flatMap((argument) => ['--should-not-exist', argument]),
  ])
  run.reporter.say(`kargs: ${[...shouldExist, ...shouldNotExist.map((each) => `not ${each}`)].join(', ')}`)
}
