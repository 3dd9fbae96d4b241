import { KeptLabels } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { BootClient } from '../lab/boot-client.ts'
import { requireLab, stateFolder } from '../lab/state-folder.ts'
import type { CommandContext } from './context.ts'

/** Labels of `--keep`; those that no machine can keep are a wrong command line. */
export function parseKept(labels: string[]): KeptLabels {
  const result = KeptLabels.safeParse(labels)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const label = labels[Number(issue?.path[0])]
  throw new Fault('USAGE', `--keep${label === undefined ? '' : ` ${label}`}: ${issue?.message}`)
}

/**
 * `kiln machine reprovision`: the machine's next boot installs it again; partitions that are kept come out as they were.
 * With `cancel` that is withdrawn, as long as the machine has not begun.
 */
export async function reprovision(
  options: { machine: string; keep: string[]; cancel?: boolean; state?: string },
  context: CommandContext,
): Promise<void> {
  const keep = parseKept(options.keep)
  if (options.cancel && keep.length > 0)
    throw new Fault('USAGE', '--cancel withdraws it as it was asked for: it takes no --keep')
  const state = stateFolder(options.state, context.environment)
  const lab = requireLab(state)
  if (options.cancel) {
    await new BootClient(state, lab).withdrawReinstall(options.machine)
    context.print(`${options.machine}: the next boot starts from its disk`)
    context.print(
      'kiln-update puts the boot loader back within half a minute: do not restart the machine before that',
    )
    return
  }
  await new BootClient(state, lab).allowReinstall(options.machine, keep)
  const kept = keep.length > 0 ? `; it keeps ${keep.join(', ')}` : ''
  context.print(`${options.machine}: the next boot installs it again${kept}`)
  if (lab.machines.length === 1)
    context.print(
      'the store is on this machine alone and is lost then: save it first (kiln kv snapshot save)',
    )
}
