import { connect, type Socket } from 'node:net'
import { Fault } from '@kiln/service'
import { plainLine } from '@kiln/vm'
import { sleep } from './waiting.ts'

export type ShellResult = { code: number; output: string }

let lastCommand = 0

/** How long a shell may take to answer before it is called again. */
const helloMs = 2_000

/**
 * Runs a command in a machine, through the root shell that development images have on the serial console. The words
 * that enclose the output are written in two halves, so that the echo of the typed line does not look like them.
 */
export async function runOnConsole(
  socketPath: string,
  command: string,
  options: { timeoutMs: number; signal: AbortSignal; helloMs?: number },
): Promise<ShellResult> {
  const id = `${process.pid}-${++lastCommand}`
  const socket = await open(socketPath)
  let text = ''
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    text += chunk
  })
  try {
    const deadline = performance.now() + options.timeoutMs
    const waitFor = async <T>(
      what: string,
      read: () => T | undefined,
      untilMs: number,
    ): Promise<T | undefined> => {
      for (;;) {
        const result = read()
        if (result !== undefined) return result
        if (performance.now() > deadline)
          throw new Fault('SHELL_TIMEOUT', `${what} within ${options.timeoutMs} ms`)
        if (performance.now() > untilMs) return undefined
        await sleep(100, options.signal)
      }
    }
    // The console comes after the machine is ready, and a shell that starts loses what was typed before its prompt.
    const isUp = (): true | undefined => (text.includes(`KILN-UP-${id}`) ? true : undefined)
    do socket.write(`\necho "KILN-U""P-${id}"\n`)
    while (
      !(await waitFor(
        'no shell answers on the console',
        isUp,
        performance.now() + (options.helloMs ?? helloMs),
      ))
    )
    socket.write(`echo "KILN-BEG""IN-${id}"; { ${command}; } 2>&1; echo "KILN-E""ND-${id} $?"\n`)
    return (await waitFor(`no end of "${command}" on the console`, () => readResult(text, id), Infinity))!
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
