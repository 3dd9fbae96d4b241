import { spawn } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import type { TerminalSize } from '@kiln/linux'
import { ExecRequest, ExecResponse, GetLogsRequest, GetLogsResponse } from '@kiln/runtime-api/messages'
import { Fault } from '@kiln/service'
import { GrpcError, grpcCode, type StreamCall, type StreamListener } from '@kiln/wire'
import { ExecRequest as ExecOfPod, type RuntimeApi } from '../api.ts'
import { decode, grpcError } from './messages.ts'

/** Input for a program that does not read; beyond it the call ends. */
const unreadInputMax = 4 << 20

export const fail = (call: StreamCall, error: unknown): void => {
  const { code, message } = grpcError(error)
  call.end({ code, message })
}

/** `GetLogs`: lines as journalctl or tail give them. */
export function serveLogs(api: RuntimeApi, call: StreamCall): StreamListener {
  const ending = new AbortController()
  let lines: ReturnType<typeof createInterface> | undefined
  const begin = (bytes: Uint8Array): void => {
    const wanted = decode(GetLogsRequest, bytes)
    const { uuid } = api.life.find(wanted.pod)
    const { journal, files, containers } = api.life.logs(uuid)
    const { container } = wanted
    if (container !== undefined && !containers.includes(container))
      throw new Fault('POD_NOT_FOUND', `the pod has no container ${container}`)
    const [command, args] = journal
      ? journalCommand(uuid, wanted)
      : tailCommand(
          files.filter((_, index) => container === undefined || containers[index] === container),
          wanted,
        )
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'], signal: ending.signal })
    child.on('error', (error) => fail(call, error))
    lines = createInterface({ input: child.stdout })
    lines.on('line', (text) => {
      const line = journal ? text : text.replace(/^\S+ std(out|err) [FP] /, '')
      if (!call.send(GetLogsResponse.encode({ line }).finish())) lines?.pause()
    })
    lines.on('close', () => call.end())
  }
  return {
    onMessage: (bytes) => {
      try {
        if (!lines) begin(bytes)
      } catch (error) {
        fail(call, error)
      }
    },
    onDrain: () => lines?.resume(),
    onClose: () => ending.abort(),
  }
}

function journalCommand(uuid: string, wanted: GetLogsRequest): [string, string[]] {
  const match = [`KILN_POD_UID=${uuid}`, ...(wanted.container ? [`KILN_CONTAINER=${wanted.container}`] : [])]
  const lines = `--lines=${wanted.lines ?? 'all'}`
  return ['journalctl', ['--output=cat', lines, ...(wanted.follow ? ['--follow'] : []), ...match]]
}

function tailCommand(files: string[], wanted: GetLogsRequest): [string, string[]] {
  const follow = wanted.follow ? ['--follow=name', '--retry', '--sleep-interval=0.1'] : []
  return ['tail', ['-q', `--lines=${wanted.lines ?? '+1'}`, ...follow, ...files]]
}

/** What ends the input of a program at a terminal: Ctrl-D. */
const endOfInput = Buffer.of(4)

/** `struct winsize` of ioctl_tty(2): rows, columns, and pixels that nobody knows. */
function windowSize({ rows, columns }: TerminalSize): Buffer {
  return Buffer.from(Uint16Array.of(rows, columns, 0, 0).buffer)
}

/** `Exec`: a program in a container, with a terminal if one is wanted. It ends with the call. */
export function serveExec(api: RuntimeApi, nameOf: (id: string) => string, call: StreamCall): StreamListener {
  let child: ReturnType<typeof spawn> | undefined
  let terminal: TerminalSize | undefined
  let sizes: Writable | undefined
  let starting: Promise<void> | undefined
  const early: Uint8Array[] = []
  let inputEnded = false
  let over = false
  const outputs: Readable[] = []

  const answer = (response: ExecResponse['response']): void => {
    if (!call.send(ExecResponse.encode({ response }).finish())) for (const output of outputs) output.pause()
  }
  const begin = async (bytes: Uint8Array): Promise<void> => {
    const { request } = decode(ExecRequest, bytes)
    if (request?.$case !== 'start' || request.value.args.length === 0)
      throw new GrpcError(grpcCode.invalidArgument, 'REQUEST_INVALID: the first request says what to run')
    const { pod, container, args, terminalType: type } = request.value
    terminal = request.value.terminal
    const planned = terminal
    const { planFile, initPath } = await api.planExec(
      nameOf(pod),
      ExecOfPod.parse({ args, container, terminal: terminal && { ...terminal, type } }),
    )
    if (over) return await rm(planFile, { force: true })
    // Its descriptor 3 is a socket for changed sizes of its terminal.
    const started = spawn(initPath, ['exec', planFile], { stdio: ['pipe', 'pipe', 'pipe', 'pipe'] })
    child = started
    sizes = started.stdio[3] as Writable
    sizes.on('error', () => undefined)
    outputs.push(started.stdout, started.stderr)
    started.stdin.on('error', () => undefined)
    started.stdout.on('data', (value: Buffer) => answer({ $case: 'output', value }))
    started.stderr.on('data', (value: Buffer) => answer({ $case: 'errorOutput', value }))
    started.on('error', (error) => fail(call, error))
    started.on('close', (status, signal) => {
      void rm(planFile, { force: true })
      answer({ $case: 'exitCode', value: status ?? (signal === 'SIGKILL' ? 137 : 255) })
      call.end()
    })
    for (const value of early) started.stdin.write(value)
    if (inputEnded) endInput()
    // It changed before there was a program to hear of it.
    if (terminal && terminal !== planned) resize(terminal)
  }
  const endInput = (): void => {
    if (terminal) child?.stdin?.write(endOfInput)
    else child?.stdin?.end()
  }
  const resize = (size: TerminalSize): void => {
    if (!terminal) return
    terminal = size
    sizes?.write(windowSize(size))
    child?.kill('SIGWINCH')
  }
  return {
    onMessage: (bytes) => {
      if (!starting) {
        starting = begin(bytes).catch((error: unknown) => fail(call, error))
        return
      }
      const { request } = decode(ExecRequest, bytes)
      if (request?.$case === 'resize') resize(request.value)
      if (request?.$case !== 'input') return
      const waiting = child?.stdin?.writableLength ?? early.reduce((sum, { length }) => sum + length, 0)
      if (waiting + request.value.length > unreadInputMax)
        call.end({ code: grpcCode.resourceExhausted, message: 'the program does not read its input' })
      else if (child) child.stdin?.write(request.value)
      else early.push(request.value)
    },
    onEnd: () => {
      inputEnded = true
      endInput()
    },
    onDrain: () => {
      for (const output of outputs) output.resume()
    },
    onClose: () => {
      over = true
      child?.kill('SIGKILL')
    },
  }
}
