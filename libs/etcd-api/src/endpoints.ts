import { assert, Fault } from '@kiln/service'
import {
  type CallError,
  type CallListener,
  type ClientStream,
  createWireClient,
  type WireClient,
  type WireLimits,
} from '@kiln/wire'
import { asBuffer, type Method, methods } from './methods.ts'
import { type Failure, readFailure, tokenIsVoid, unknownOutcome } from './store-fault.ts'

export type ClientTls = { ca: string | Buffer; cert?: string | Buffer; key?: string | Buffer }

/** Who asks, in a cluster with authentication. */
export type StoreUser = { name: string; password: string }

/** How long an endpoint that comes first is waited for before the next is tried beside it. */
const headStartMs = 300
/** Between rounds over endpoints that all refused for now. */
const roundPauseMs = 100

/** How large an answer may be: a whole prefix comes in one. */
const answerBytesMax = 256 * 1024 * 1024
const limits: Partial<WireLimits> = { messageBytesMax: answerBytesMax, partialBytesMax: answerBytesMax }
const backoff = { backoffMinMs: 200, backoffMaxMs: 2000 }

/** Fixed, or asked for whenever a connection opens. */
export type ClientTlsSource = ClientTls | (() => ClientTls)

/** What is being done, for messages; the one endpoint that may be asked; how long in all, if not as long as others. */
export type CallOf = { doing: string; only?: string | undefined; timeoutMs?: number | undefined }

type Header = readonly [string, string]

type Endpoint = { url: string; secure: boolean; host: string; port: number; client: WireClient | undefined }

/** The members of a cluster as a client sees them: connects when needed, prefers one that works, fails over. */
export class Endpoints {
  private readonly all: Endpoint[]
  /** Order of preference; an endpoint that failed goes to the end. */
  private order: Endpoint[]
  private tls: ClientTlsSource | undefined
  private closed = false
  private readonly timeoutMs: number
  private readonly user: StoreUser | undefined
  private readonly limits: Partial<WireLimits>
  /** Of the user; empty where authentication is off, undefined before it was asked for. */
  private token: string | undefined

  constructor(
    urls: readonly string[],
    tls: ClientTlsSource | undefined,
    timeoutMs: number,
    user?: StoreUser,
    keepAlive?: { intervalMs: number; timeoutMs: number },
  ) {
    this.user = user
    this.limits = keepAlive
      ? { ...limits, keepAliveIntervalMs: keepAlive.intervalMs, keepAliveTimeoutMs: keepAlive.timeoutMs }
      : limits
    assert(urls.length > 0, 'a client has at least one endpoint')
    this.all = urls.map(parseEndpoint)
    this.order = [...this.all]
    this.tls = tls
    this.timeoutMs = timeoutMs
  }

  get urls(): string[] {
    return this.order.map((endpoint) => endpoint.url)
  }

  /**
   * Calls a method. A request that certainly had no effect is sent again, elsewhere if possible, until the time is up; one that
   * may have been applied only if it is a read.
   */
  async call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    { doing, only, timeoutMs = this.timeoutMs }: CallOf,
  ): Promise<Response> {
    const deadline = Date.now() + timeoutMs
    const bytes = method.encode(request)
    let last: Fault | undefined
    let signedInAnew = false
    for (;;) {
      // A call that may wait for long for its answer does not wait as long for a connection.
      const connectBy = Math.min(deadline, Date.now() + this.timeoutMs)
      const endpoint = await this.ready(connectBy, doing, only, last)
      const headers = await this.identity(endpoint, doing)
      const leftMs = deadline - Date.now()
      // Half of the time for the first try of a read, so that another endpoint gets its chance.
      const attemptMs = method.kind === 'read' && this.all.length > 1 ? Math.max(leftMs / 2, 200) : leftMs
      const options = { timeoutMs: attemptMs, headers }
      const outcome = await attempt(endpoint, method.path, bytes, options, doing)
      if (outcome instanceof Uint8Array) return method.decode(asBuffer(outcome))
      if (headers !== undefined && !signedInAnew && tokenIsVoid(outcome.fault)) {
        signedInAnew = true
        this.token = undefined
        continue
      }
      if (outcome.kind === 'refused') throw outcome.fault
      this.demote(endpoint)
      if (outcome.kind === 'lost' && method.kind === 'write') throw unknownOutcome(outcome.fault, doing)
      last = outcome.fault
      if (Date.now() + roundPauseMs >= deadline) throw last
      await pause(roundPauseMs)
    }
  }

  /** Opens a stream of messages in both directions. `failed` puts its endpoint behind the others. */
  async open(
    path: string,
    doing: string,
    listener: CallListener,
    options: { requireLeader?: boolean } = {},
  ): Promise<{ stream: ClientStream; url: string; failed(): void }> {
    const endpoint = await this.ready(Date.now() + this.timeoutMs, doing, undefined, undefined)
    const identity = (await this.identity(endpoint, doing)) ?? []
    const stream = endpoint.client!.stream(path, listener, {
      headers: options.requireLeader ? [...requireLeader, ...identity] : identity,
    })
    const failed = () => {
      // It may have been the token's end.
      this.token = undefined
      this.demote(endpoint)
    }
    return { stream, url: endpoint.url, failed }
  }

  /** The header that says who asks; none without a user, and none where authentication is off. */
  private async identity(endpoint: Endpoint, doing: string): Promise<Header[] | undefined> {
    if (this.user === undefined) return undefined
    if (this.token === undefined) {
      const { path, encode, decode } = methods.authenticate
      const options = { timeoutMs: this.timeoutMs }
      const outcome = await attempt(endpoint, path, encode(this.user), options, `${doing}: sign in`)
      if (outcome instanceof Uint8Array) this.token = decode(asBuffer(outcome)).token
      else if (outcome.fault.message.includes('authentication is not enabled')) this.token = ''
      else throw outcome.fault
    }
    return this.token === '' ? undefined : [['token', this.token]]
  }

  /** New connections use this certificate; watches go on over one, calls under way are waited for on the old. */
  renewTls(tls: ClientTls): void {
    this.tls = tls
    for (const { client } of this.all) client?.reconnect()
  }

  close(): void {
    this.closed = true
    for (const { client } of this.all) client?.close()
  }

  private demote(endpoint: Endpoint): void {
    if (this.order.length > 1) this.order = [...this.order.filter((other) => other !== endpoint), endpoint]
  }

  /** A connected endpoint: the first by preference that is, else whichever gets there first. */
  private async ready(
    deadline: number,
    doing: string,
    only: string | undefined,
    last: Fault | undefined,
  ): Promise<Endpoint> {
    if (this.closed) throw new Fault('STORE_CLOSED', `${doing}: the client is closed`)
    const candidates =
      only === undefined ? this.order : this.order.filter((endpoint) => endpoint.url === only)
    assert(candidates.length > 0, `endpoint ${only} is one of the client's`)
    for (const endpoint of candidates) this.connect(endpoint)
    const first = candidates[0]!
    if (first.client!.connected) return first
    const attempts = candidates.map(async (endpoint, place) => {
      if (place > 0) await pause(headStartMs * place)
      await endpoint.client!.whenConnected(deadline - Date.now())
      return endpoint
    })
    try {
      return await Promise.any(attempts)
    } catch (error) {
      const causes = (error as AggregateError).errors as Error[]
      const where = candidates.map((endpoint) => endpoint.url).join(', ')
      if (this.closed) throw new Fault('STORE_CLOSED', `${doing}: the client is closed`)
      throw (
        last ?? new Fault('STORE_UNREACHABLE', `${doing}: no connection to ${where}`, { cause: causes[0] })
      )
    }
  }

  private connect(endpoint: Endpoint): void {
    const { host, port, secure } = endpoint
    endpoint.client ??= createWireClient({
      host,
      port,
      tls: secure ? () => this.material() : undefined,
      limits: this.limits,
      ...backoff,
    })
    endpoint.client.connect()
  }

  /** Without a CA of its own the client trusts those of the system. */
  private material(): Partial<ClientTls> {
    return (typeof this.tls === 'function' ? this.tls() : this.tls) ?? {}
  }
}

/** Asks a member to end the stream when it loses its leader. */
const requireLeader = [['hasleader', 'true']] as const

function parseEndpoint(url: string): Endpoint {
  const match = /^(https?):\/\/(\[[0-9a-fA-F:.]+\]|[^/:[\]]+)(?::([0-9]{1,5}))?\/?$/.exec(url)
  const port = Number(match?.[3] ?? (match?.[1] === 'https' ? 443 : 80))
  if (match === null || port > 65_535)
    throw new Fault('STORE_INVALID', `endpoint ${url} is not http://HOST:PORT or https://HOST:PORT`)
  const host = match[2]!.replace(/^\[(.*)\]$/, '$1')
  return { url, secure: match[1] === 'https', host, port, client: undefined }
}

/** One try at one endpoint: the answer, or what its absence means. */
async function attempt(
  endpoint: Endpoint,
  path: string,
  request: Buffer,
  options: { timeoutMs: number; headers?: Header[] | undefined },
  doing: string,
): Promise<Uint8Array | Failure> {
  try {
    return await endpoint.client!.unary(path, request, options)
  } catch (error) {
    return readFailure(error as CallError, doing, endpoint.url)
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
