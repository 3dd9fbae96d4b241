import { PodStatus, ServiceRecord, storeKeys } from '@kiln/schemas'
import { listJson, withStore } from '../lab/cluster-store.ts'
import { requireLab, stateFolder } from '../lab/state-folder.ts'
import { table } from '../progress/table.ts'
import type { CommandContext } from './context.ts'

type Options = { state?: string; json: boolean }

/** `kiln pods`: pods as the machines report them into the store. */
export async function pods(options: Options, context: CommandContext): Promise<void> {
  await list(
    options,
    context,
    storeKeys.status,
    ['MACHINE', 'POD', 'PHASE', 'ADDRESS', 'RESTARTS', 'MESSAGE'],
    (name, value) => {
      const [machine = '', pod = ''] = name.split('/')
      const status = PodStatus.safeParse(value).data
      const restarts = status?.containers.reduce((sum, container) => sum + container.restarts, 0)
      return [
        machine,
        pod,
        status?.phase ?? 'unreadable',
        status?.addresses?.join(' ') ?? status?.address ?? '',
        restarts?.toString() ?? '',
        [status?.code, status?.message].filter(Boolean).join(': '),
      ]
    },
  )
}

/** `kiln services`: where services are reached. */
export async function services(options: Options, context: CommandContext): Promise<void> {
  await list(
    options,
    context,
    storeKeys.services,
    ['SERVICE', 'INSTANCE', 'READY', 'ADDRESS', 'PORTS'],
    (name, value) => {
      const [service = '', instance = ''] = name.split('/')
      const record = ServiceRecord.safeParse(value).data
      const ports = record?.ports.map(
        ({ port, protocol, name: portName }) =>
          `${portName ?? ''}${portName ? '=' : ''}${port}/${protocol.toLowerCase()}`,
      )
      const ready = record && (record.ready ? 'yes' : 'no')
      const reach = record?.scope === 'machine' ? ' (on its machine)' : ''
      return [
        service,
        instance,
        ready ?? '',
        record ? `${record.address}${reach}` : 'unreadable',
        ports?.join(', ') ?? '',
      ]
    },
  )
}

async function list(
  options: Options,
  context: CommandContext,
  prefix: string,
  heading: string[],
  row: (name: string, value: unknown) => string[],
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const found = await withStore(state, requireLab(state), (store) => listJson(store, prefix))
  if (options.json)
    context.print(JSON.stringify(Object.fromEntries(found.map(({ key, value }) => [key, value])), null, 2))
  else context.print(table([heading, ...found.map(({ key, value }) => row(key.slice(prefix.length), value))]))
}
