import type { PodStatus } from '@kiln/schemas'
import { alignColumns } from './image-table.ts'
import type { PodEntry } from './life/pod-entry.ts'

/** Pods as a table, one a line: those that the daemon keeps, then those that are prepared or over. */
export function podTable(pods: PodStatus[], entries: PodEntry[]): string[] {
  const words = new Map(entries.map((entry) => [entry.uuid, entry.state]))
  const kept = pods.map((pod) => [
    pod.uid.slice(0, 8) || '-',
    pod.name,
    words.get(pod.uid) ?? '-',
    pod.phase,
    readyCount(pod),
    String(pod.containers.reduce((sum, container) => sum + container.restarts, 0)),
    pod.address ?? '-',
    pod.source,
    pod.containers.find((container) => container.reason)?.reason ?? pod.code ?? '',
  ])
  const others = entries
    .filter(({ supervised }) => !supervised)
    .map((entry) => {
      const code = entry.exitCode === undefined ? '' : `exit code ${entry.exitCode}`
      return [
        entry.uuid.slice(0, 8),
        entry.name || '-',
        entry.state,
        '-',
        '-',
        '-',
        '-',
        entry.source || '-',
        code,
      ]
    })
  const head = ['UUID', 'POD', 'STATE', 'PHASE', 'READY', 'RESTARTS', 'ADDRESS', 'SOURCE', 'REASON']
  return alignColumns([head, ...kept, ...others])
}

/** `1/2`: containers that are ready, of those that go on running. */
function readyCount({ containers }: PodStatus): string {
  const main = containers.filter(({ init }) => !init)
  const ready = main.filter((container) => container.ready ?? container.state === 'running')
  return `${ready.length}/${main.length}`
}

/** A pod with its containers. */
export function podLines(pod: PodStatus): string[] {
  const ports = pod.ports.map(({ port, hostPort, protocol }) =>
    hostPort === undefined ? `${port}/${protocol}` : `${hostPort}->${port}/${protocol}`,
  )
  return [
    `${pod.name}: ${pod.phase}${pod.ready ? ', ready' : ''}${pod.address ? `, ${(pod.addresses ?? [pod.address]).join(' ')}` : ''}`,
    `  service ${pod.service}${ports.length > 0 ? `, ports ${ports.join(' ')}` : ''}, from ${pod.source}`,
    ...(pod.code ? [`  ${pod.code}: ${pod.message ?? ''}`] : []),
    ...pod.containers.map((container) => {
      const exit = container.lastExit
      const last = exit ? `, last exit ${exit.code}${exit.oomKilled ? ' (out of memory)' : ''}` : ''
      const why = container.reason ? ` (${container.reason})` : ''
      return `  ${container.name}: ${container.state}${why}, ${container.restarts} restarts${last}`
    }),
  ]
}
