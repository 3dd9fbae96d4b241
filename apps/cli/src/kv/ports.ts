import type { Fault } from '@kiln/service'
import type { CommandContext } from '../commands/context.ts'

/** What a command of `kiln kv` gets from the process. */
export type KvPorts = CommandContext & {
  /** Standard output for bytes that are no text. */
  write(bytes: Uint8Array): void
  /** Standard input, for transactions, values and passwords. */
  input: AsyncIterable<Uint8Array | string> & { isTTY?: boolean; setRawMode?(on: boolean): unknown }
  /** The command is over, with this code. */
  exit(code: number): void
  /** The command printed what there is, and failed. */
  fail(fault: Fault): void
}

/** All of standard input. */
export async function readInput(ports: KvPorts): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of ports.input) chunks.push(Buffer.from(chunk as Uint8Array))
  return Buffer.concat(chunks)
}
