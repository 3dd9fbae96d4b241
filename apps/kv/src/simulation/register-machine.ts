import type { CommittedEntry, StateMachine } from '../consensus/types.ts'

/** A command of the simulated store; each carries its own number, so that no two entries are alike. */
export type Command =
  | { kind: 'put'; id: number; key: string; value: string }
  | { kind: 'cas'; id: number; key: string; expected: string | undefined; value: string }
  | { kind: 'delete'; id: number; key: string }

export type CommandResult = { found: string | undefined; written: boolean }

export type RegisterMachine = StateMachine<CommandResult> & {
  get(key: string): string | undefined
  /** The whole state as text. */
  dump(): string
}

/** Single values by key. `applied` hears of each entry, for the checks. */
export function createRegisterMachine(observe: {
  applied(entry: CommittedEntry): void
  restored(): void
}): RegisterMachine {
  let values = new Map<string, string>()
  const dump = (): string => JSON.stringify([...values].sort(([a], [b]) => (a < b ? -1 : 1)))
  return {
    get: (key) => values.get(key),
    dump,
    apply: (entries) =>
      entries.map((entry) => {
        observe.applied(entry)
        return applyCommand(values, decodeCommand(entry.data))
      }),
    snapshot: async () => new TextEncoder().encode(dump()),
    restore: async (snapshot) => {
      const pieces: Uint8Array[] = []
      for await (const piece of snapshot) pieces.push(piece)
      values = new Map(JSON.parse(Buffer.concat(pieces).toString()) as [string, string][])
      observe.restored()
    },
  }
}

export function encodeCommand(command: Command): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(command))
}

function decodeCommand(bytes: Uint8Array): Command {
  return JSON.parse(new TextDecoder().decode(bytes)) as Command
}

function applyCommand(values: Map<string, string>, command: Command): CommandResult {
  const found = values.get(command.key)
  switch (command.kind) {
    case 'put':
      values.set(command.key, command.value)
      return { found, written: true }
    case 'delete':
      values.delete(command.key)
      return { found, written: true }
    case 'cas': {
      const written = found === command.expected
      if (written) values.set(command.key, command.value)
      return { found, written }
    }
  }
}
