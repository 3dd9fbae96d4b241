import { BootClient } from '../lab/boot-client.ts'
import { summarise } from '../lab/cluster-summary.ts'
import { requireLab, stateFolder } from '../lab/state-folder.ts'
import { placeOf } from '../progress/machine-progress.ts'
import { table } from '../progress/table.ts'
import type { CommandContext } from './context.ts'

/** `kiln machines`: the cluster's machines, and those the boot server knows that are not assigned. */
export async function machines(
  options: { state?: string; json: boolean },
  context: CommandContext,
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const lab = requireLab(state)
  const [summary, records] = await Promise.all([
    summarise(state, lab),
    new BootClient(state, lab).machines().catch(() => []),
  ])
  const own = new Set(lab.machines.map(({ bootMac }) => bootMac))
  const others = records.filter(({ mac }) => !own.has(mac))
  if (options.json) {
    context.print(JSON.stringify({ machines: summary.machines, others, records }, null, 2))
    return
  }
  const rows = summary.machines.map((machine) => {
    const record = records.find(({ name, id }) => (name ?? id) === machine.name)
    const stage = record?.stage ? `${record.stage} ${record.stageStatus ?? ''}`.trim() : ''
    return [
      machine.name,
      machine.address,
      machine.power,
      machine.state,
      stage,
      machine.version,
      machine.slot,
      machine.store,
      machine.cpuSeconds === undefined ? '' : machine.cpuSeconds.toFixed(0),
      machine.rssMiB?.toString() ?? '',
    ]
  })
  const heading = [
    'MACHINE',
    'ADDRESS',
    'POWER',
    'STATE',
    'STAGE',
    'VERSION',
    'SLOT',
    'STORE',
    'CPU S',
    'MIB',
  ]
  context.print(table([heading, ...rows]))
  const failed = records.filter(({ message }) => message !== undefined)
  for (const record of failed) {
    const place = placeOf(record)
    context.print(`\n${record.id}: ${record.message}${place ? ` (${place})` : ''}`)
  }
  for (const { id, reinstall, keep = [] } of records) {
    if (reinstall !== true) continue
    const kept = keep.length > 0 ? ` and keeps ${keep.join(', ')}` : ''
    context.print(`\n${id}: its next boot installs it again${kept}`)
  }
  if (others.length > 0) {
    context.print('\nNot of this cluster:')
    context.print(
      table([
        ['ID', 'MAC', 'STATE', 'LAST SEEN'],
        ...others.map((one) => [one.id, one.mac, one.state, one.lastSeenAt]),
      ]),
    )
  }
}
