import type { EtcdClient } from '@kiln/etcd-api'
import type { JsonValue } from '@kiln/etcd-api/descriptors'
import { Fault } from '@kiln/service'
import type { Command } from 'commander'
import { table } from '../progress/table.ts'
import type { ApiCall } from './calls.ts'
import type { KvPorts } from './ports.ts'
import { type ConnectionFlags, openClient } from './settings.ts'
import { argumentBytes } from './text.ts'

export type Format = 'simple' | 'table' | 'json'

export type CommonFlags = ConnectionFlags & { json: boolean; writeOut?: string; base64: boolean }

/** A command under way: its store, and how it says what it found. */
export type Session = {
  store: EtcdClient
  ports: KvPorts
  format: Format
  /** An argument that names a key or is a value. */
  bytes(argument: string): Uint8Array
  call<Request, Response>(
    method: ApiCall<Request, Response>,
    fields: Partial<Request>,
    doing: string,
    options?: { only?: string; timeoutMs?: number },
  ): Promise<Response>
  /** One document of `--json`. */
  json(value: JsonValue): void
  /** Rows as a table on a terminal, as fields with a comma between for other readers. */
  rows(heading: readonly string[], rows: readonly (readonly string[])[]): void
  table(heading: readonly string[], rows: readonly (readonly string[])[]): string
}

const formats: readonly string[] = ['simple', 'table', 'json']

/** Adds what every command of `kiln kv` takes, and what it does. */
export function leaf<Flags extends object>(
  command: Command,
  ports: KvPorts,
  work: (session: Session, args: string[], flags: Flags) => Promise<void>,
): Command {
  command
    .optionsGroup('Output:')
    .option('--json', 'print JSON: bytes in base64, 64-bit integers as strings', false)
    .option('-w, --write-out <format>', 'simple, table (the default on a terminal) or json')
    .option('--base64', 'keys and values among the arguments are base64', false)
    .optionsGroup('Connection (or ETCDCTL_* of the environment; without any, the cluster of kiln up):')
    .option('--endpoints <urls>', 'client URLs, with commas between')
    .option('--cacert <file>', "CA of the members' certificates")
    .option('--cert <file>', 'certificate to show them')
    .option('--key <file>', 'its key')
    .option('--user <name[:password]>', 'sign in; without a password it is asked for')
    .option('--password <text>', 'password of the user; the name is then all of --user')
    .option('--command-timeout <duration>', 'how long a request may take (default: 5s)')
    .option('--state <dir>', 'folder of the cluster of kiln up')
    .action(async (...given: unknown[]) => {
      const self = given.at(-1) as Command
      const flags = self.opts() as CommonFlags & Flags
      const session = await openSession(flags, ports)
      try {
        await work(session, self.args, flags)
      } finally {
        session.store.close()
      }
    })
  return command
}

async function openSession(flags: CommonFlags, ports: KvPorts): Promise<Session> {
  const store = await openClient(flags, ports)
  const format = formatOf(flags, ports)
  return {
    store,
    ports,
    format,
    bytes: (argument) => argumentBytes(argument, flags.base64),
    call: (method, fields, doing, options = {}) =>
      store.call(method, method.requestOf(fields), { doing, ...options }),
    table: (heading, rows) => table([heading, ...rows]),
    json: (value) => ports.print(JSON.stringify(value)),
    rows(heading, rows) {
      if (format === 'table') ports.print(table([heading, ...rows]))
      else for (const row of rows) ports.print(row.join(', '))
    },
  }
}

function formatOf(flags: CommonFlags, ports: KvPorts): Format {
  if (flags.json) return 'json'
  const wanted = flags.writeOut ?? ports.environment['ETCDCTL_WRITE_OUT']
  if (wanted === undefined || wanted === '') return ports.live ? 'table' : 'simple'
  if (!formats.includes(wanted))
    throw new Fault('USAGE', `--write-out ${wanted}: there are ${formats.join(', ')}`)
  return wanted as Format
}

/** Prints an answer as JSON if that is wanted; answers whether it was. */
export function asJson<Request, Response>(
  session: Session,
  method: ApiCall<Request, Response>,
  answer: Response,
): boolean {
  if (session.format === 'json') session.json(method.json(answer))
  return session.format === 'json'
}
