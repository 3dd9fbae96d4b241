import type { Command } from 'commander'
import { alignColumns } from '../image-table.ts'
import type { PodEvent } from './event-log.ts'

/** `kiln-runtime events`: what happened to pods, and why. */
export function addEventCommands(
  program: Command,
  ports: {
    print(line: string): void
    /** Hears of each event; ends when there is none left, or never if it follows. */
    events(query: URLSearchParams, heard: (event: PodEvent) => void): Promise<void>
  },
): void {
  program
    .command('events [pod]')
    .description('what happened to the pods of this machine, or to one by its name or whole uuid')
    .option('-f, --follow', 'go on as it happens')
    .option('--after <sequence>', 'only events with a higher number')
    .option('--json', 'as lines of JSON')
    .action(
      async (pod: string | undefined, options: { follow?: boolean; after?: string; json?: boolean }) => {
        const query = new URLSearchParams({
          ...(pod === undefined ? {} : { pod }),
          ...(options.after === undefined ? {} : { after: options.after }),
          ...(options.follow ? { follow: '1' } : {}),
        })
        const seen: PodEvent[] = []
        await ports.events(query, (event) => {
          if (options.json) ports.print(JSON.stringify(event))
          else if (options.follow) ports.print(eventCells(event).join('  '))
          else seen.push(event)
        })
        if (!options.json && !options.follow) eventTable(seen).forEach(ports.print)
      },
    )
}

/** Events as a table, one a line. Pure. */
export const eventTable = (events: PodEvent[]): string[] =>
  alignColumns([['TIME', 'TYPE', 'REASON', 'POD', 'MESSAGE'], ...events.map(eventCells)])

const eventCells = (event: PodEvent): string[] => [
  event.at,
  event.warning ? 'Warning' : 'Normal',
  event.reason,
  event.container === undefined ? event.pod : `${event.pod}/${event.container}`,
  event.message,
]
