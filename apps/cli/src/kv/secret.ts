import { Fault } from '@kiln/service'
import { type KvPorts, readInput } from './ports.ts'

/** Ctrl-C, Ctrl-D, backspace and the line's end as a terminal in raw mode sends them. */
const keys = { interrupt: '\u0003', end: '\u0004', erase: '\u007f', return: '\r' }

/** A password: one line of standard input, not shown when that is a terminal. */
export async function readSecret(prompt: string, ports: KvPorts): Promise<string> {
  const { input } = ports
  if (input.isTTY !== true || input.setRawMode === undefined)
    return (await readInput(ports)).toString('utf8').split(/\r?\n/, 1)[0]!
  ports.note(prompt)
  input.setRawMode(true)
  let typed = ''
  try {
    for await (const chunk of input) {
      for (const char of chunk.toString()) {
        if (char === keys.interrupt) throw new Fault('CANCELLED', 'no password was given')
        if (char === keys.return || char === keys.end || char === '\n') return typed
        typed = char === keys.erase ? typed.slice(0, -1) : typed + char
      }
    }
    return typed
  } finally {
    input.setRawMode(false)
  }
}
