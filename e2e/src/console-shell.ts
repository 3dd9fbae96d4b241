import { connect, type Socket } from 'node:net'
import { Fault } from '@kiln/service'
import { plainLine } from '@kiln/vm'
import { sleep } from './waiting.ts'

export type ShellResult = { code: number; output: string }

let lastCommand = 0

/**
 * Runs a command in a machine, through the root shell that development images have on the serial console. The words
 * that enclose the output are written in two halves, so that the echo of the typed line does not look like them.
 */
export async function runOnConsole(
  socketPath: string,
  command: string,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<ShellResult> {
  const id = `${process.pid}-${++lastCommand}`
  const socket = await open(socketPath)
  let text = ''
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    text += chunk
  })
  try {
    // A shell that just started may lose what is typed before its prompt; asking again is harmless.
    socket.write('\n')
    await sleep(300, options.signal)
    socket.write(`echo "KILN-BEG""IN-${id}"; { ${command}; } 2>&1; echo "KILN-E""ND-${id} $?"\n`)
    const deadline = performance.now() + options.timeoutMs
    for (;;) {
      const result = readResult(text, id)
      if (result) return result
      if (performance.now() > deadline) {
        throw new Fault(
          'SHELL_TIMEOUT',
          `no end of "${command}" on the console within ${options.timeoutMs} ms`,
        )
      }
      await sleep(100, options.signal)
    }
  } finally {
    socket.destroy()
  }
}

/** What stands between the enclosing words, once both are there. */
export function readResult(text: string, id: string): ShellResult | undefined {
  const lines = text.split(/\r?\n/).map(plainLine)
  const first = lines.findIndex((line) => line.includes(`KILN-BEGIN-${id}`))
  const last = lines.findIndex((line) => line.includes(`KILN-END-${id} `))
  if (first < 0 || last < 0) return undefined
  const end = lines[last]!
  const [before = '', code = ''] = end.split(`KILN-END-${id} `)
  // Output without a line break at its end shares the last line.
  const output = [...lines.slice(first + 1, last), ...(before === '' ? [] : [before])].join('\n')
  return { code: Number.parseInt(code, 10), output }
}

function open(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => {
      socket.on('error', () => socket.destroy())
      resolve(socket)
    })
    socket.once('error', (cause) =>
      reject(new Fault('SHELL_UNREACHABLE', `no console at ${path}`, { cause })),
    )
  })
}
