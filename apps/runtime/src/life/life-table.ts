import { alignColumns } from '../image-table.ts'
import type { PodEntry } from './pod-entry.ts'

/** rkt's `list --full`: all apps of all pods in all states. Pure. */
export function entryTable(entries: PodEntry[], full: boolean): string[] {
  const rows = entries.flatMap((entry) =>
    (entry.apps.length > 0 ? entry.apps : [{ name: '', image: '' }]).map((app, index) => [
      ...(index === 0 ? [full ? entry.uuid : entry.uuid.slice(0, 8), entry.name] : ['', '']),
      app.name,
      app.image,
      ...(index === 0
        ? [entry.state, entry.createdAt, entry.startedAt ?? '', networksOf(entry)]
        : ['', '', '', '']),
    ]),
  )
  return alignColumns([
    ['UUID', 'POD', 'APP', 'IMAGE NAME', 'STATE', 'CREATED', 'STARTED', 'NETWORKS'],
    ...rows,
  ])
}

/** rkt's `status`. Pure. */
export function entryLines(entry: PodEntry): string[] {
  const pid = entry.apps.find((app) => app.pid !== undefined)?.pid
  return [
    `state=${entry.state}`,
    ...(entry.createdAt ? [`created=${entry.createdAt}`] : []),
    ...(entry.startedAt ? [`started=${entry.startedAt}`] : []),
    ...(pid === undefined ? [] : [`pid=${pid}`]),
    ...(entry.startedAt ? [`exited=${entry.state.startsWith('exited')}`] : []),
    ...(entry.addresses.length > 0 ? [`networks=${networksOf(entry)}`] : []),
    ...entry.apps.flatMap((app) => (app.exitCode === undefined ? [] : [`app-${app.name}=${app.exitCode}`])),
  ]
}

const networksOf = (entry: PodEntry): string =>
  [...entry.networks, ...entry.addresses.map((address) => `ip=${address}`)].join(',')
