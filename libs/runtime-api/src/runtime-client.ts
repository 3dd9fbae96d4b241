import { Fault } from '@kiln/service'
import {
  type CallError,
  type ClientStream,
  createWireClient,
  type WireClient,
  type WireClientTls,
} from '@kiln/wire'
import {
  type ContainerStats,
  Event,
  ExecRequest,
  ExecResponse,
  GetLogsRequest,
  GetLogsResponse,
  GetStatsRequest,
  GetStatsResponse,
  ListenEventsRequest,
  type TerminalSize,
} from './generated/runtime.ts'

export const runtimeService = '/kiln.runtime.v1.Runtime'

/** Where a machine's kiln-runtime serves the operator, unless its setting `grpcPort` says otherwise. */
export const operatorPort = 7480

type Codec<T> = { encode(message: T): { finish(): Uint8Array }; decode(bytes: Uint8Array): T }

/** What a program that Ctrl-C ends gives: 128 and SIGINT. */
const interrupted = 130

/** Input for a program that reads more slowly than it comes is held back from here on. */
const unreadInputMax = 1 << 20

/** kiln-runtime of one machine. Errors have the code that the daemon gives (docs/reference/errors.md), or RUNTIME_UNREACHABLE. */
export class RuntimeClient {
  readonly #client: WireClient
  readonly #where: string

  constructor(options: { host: string; port: number; tls: WireClientTls }) {
    this.#client = createWireClient(options)
    this.#where = `${options.host}:${options.port}`
  }

  /** Lines of a pod's containers, until there are no more or the signal ends it. */
  async logs(
    wanted: { pod: string; container?: string; lines?: number; follow: boolean },
    heard: (line: string) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const request = { container: undefined, lines: undefined, ...wanted }
    await this.#stream('GetLogs', GetLogsRequest, request, GetLogsResponse, signal, ({ line }) => heard(line))
  }

  /** What happened to a pod, or to all, until there is no more or the signal ends it. */
  async events(
    wanted: { pod?: string; after?: bigint; follow: boolean },
    heard: (event: Event) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const request = { pod: undefined, after: 0n, ...wanted }
    await this.#stream('ListenEvents', ListenEventsRequest, request, Event, signal, heard)
  }

  /** What the containers of a pod, or of all pods that run, use now. */
  async stats(pod: string | undefined, timeoutMs: number): Promise<ContainerStats[]> {
    const bytes = GetStatsRequest.encode({ pod }).finish()
    const answer = await this.#client
      .unary(`${runtimeService}/GetStats`, bytes, { timeoutMs })
      .catch((error: CallError) => Promise.reject(this.#fault(error)))
    return GetStatsResponse.decode(answer).containers
  }

  /** Runs a program in a container with the input that comes; answers its exit code, 128 and the signal's number for one that was killed. */
  async exec(
    wanted: {
      pod: string
      container?: string
      args: string[]
      /** It gets a terminal: what it would write to its error output is output then. */
      terminal?: TerminalSize
      /** The `TERM` of that terminal. */
      terminalType?: string
    },
    at: {
      input: AsyncIterable<Uint8Array>
      output(bytes: Uint8Array): void
      errorOutput(bytes: Uint8Array): void
      /** Is called once with what is to hear of each other size of the terminal here; answers how to hear no more. */
      followSize?(heard: (size: TerminalSize) => void): () => void
    },
    signal: AbortSignal,
  ): Promise<number> {
    let code: number | undefined
    let drained = (): void => undefined
    let unfollow = (): void => undefined
    await this.#open(
      'Exec',
      signal,
      (bytes) => {
        const { response } = ExecResponse.decode(bytes)
        if (response?.$case === 'output') at.output(response.value)
        else if (response?.$case === 'errorOutput') at.errorOutput(response.value)
        else if (response?.$case === 'exitCode') code = response.value
      },
      (stream) => {
        const send = (request: ExecRequest['request']): boolean =>
          stream.send(ExecRequest.encode({ request }).finish())
        const start = { container: undefined, terminal: undefined, terminalType: undefined, ...wanted }
        send({ $case: 'start', value: start })
        unfollow = at.followSize?.((value) => send({ $case: 'resize', value })) ?? unfollow
        void (async () => {
          for await (const value of at.input) {
            send({ $case: 'input', value })
            while (stream.open && stream.bufferedBytes > unreadInputMax)
              await new Promise<void>((resolve) => {
                drained = resolve
              })
            if (!stream.open) return
          }
          stream.end()
        })().catch(() => stream.cancel())
      },
      () => drained(),
    ).finally(() => unfollow())
    if (code === undefined && signal.aborted) return interrupted
    if (code === undefined)
      throw new Fault('RUNTIME_UNREACHABLE', `${this.#where} did not say how the program ended`)
    return code
  }

  close(): void {
    this.#client.close()
  }

  #stream<Q, A>(
    method: string,
    request: Codec<Q>,
    message: Q,
    answer: Codec<A>,
    signal: AbortSignal,
    heard: (answer: A) => void,
  ): Promise<void> {
    return this.#open(
      method,
      signal,
      (bytes) => heard(answer.decode(bytes)),
      (stream) => {
        stream.send(request.encode(message).finish())
        stream.end()
      },
    )
  }

  #open(
    method: string,
    signal: AbortSignal,
    onMessage: (bytes: Uint8Array) => void,
    begin: (stream: ClientStream) => void,
    onDrain: () => void = () => undefined,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancel = (): void => stream.cancel()
      const stream = this.#client.stream(`${runtimeService}/${method}`, {
        onMessage,
        onDrain,
        onClose: (error) => {
          signal.removeEventListener('abort', cancel)
          onDrain()
          if (error && !signal.aborted) reject(this.#fault(error))
          else resolve()
        },
      })
      signal.addEventListener('abort', cancel, { once: true })
      begin(stream)
      if (signal.aborted) cancel()
    })
  }

  /** The code at the beginning of the message is the daemon's. */
  #fault(error: CallError): Fault {
    const [, code, message] = /^([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+): (.*)$/s.exec(error.message) ?? []
    if (code !== undefined) return new Fault(code, message ?? '')
    return new Fault('RUNTIME_UNREACHABLE', `kiln-runtime at ${this.#where}: ${error.message}`, {
      remedy:
        'see whether the machine is up, and whether the certificate is the operator\\u2019s of this cluster',
    })
  }
}
