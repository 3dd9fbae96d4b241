import { isIP } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  type ClientDuplexStream,
  connectivityState,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js'
import { assert, Fault } from '@kiln/service'
import type { Method } from './methods.ts'
import { type Failure, readFailure, unknownOutcome } from './store-fault.ts'

export type ClientTls = { ca: string | Buffer; cert?: string | Buffer; key?: string | Buffer }

/** A certificate for good, or a function that gives the present one; it is asked whenever a connection is opened. */
export type TlsSource = ClientTls | (() => ClientTls)

/** How long an endpoint that comes first is waited for before the next is tried beside it. */
const headStartMs = 300
/** Between rounds over endpoints that all refused for now. */
const roundPauseMs = 100

const channelOptions: ChannelOptions = {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc.initial_reconnect_backoff_ms': 200,
  'grpc.max_reconnect_backoff_ms': 2000,
  // A machine that lost its power does not say goodbye. etcd allows a ping every five seconds.
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5000,
}

/** An address is no name to send in a handshake (RFC 6066, section 3); the certificate is checked against the address all the same. */
const serverNameForAddresses = 'store'

type Endpoint = {
  url: string
  target: string
  secure: boolean
  client: Client | undefined
  /** What the client connects with. */
  tls: ClientTls | undefined
}

/** The members of a cluster as a client sees them: connects when needed, prefers one that works, fails over. */
export class Endpoints {
  private readonly all: Endpoint[]
  /** Order of preference; an endpoint that failed goes to the end. */
  private order: Endpoint[]
  private tls: TlsSource | undefined
  private closed = false
  private readonly timeoutMs: number

  constructor(urls: readonly string[], tls: TlsSource | undefined, timeoutMs: number) {
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
    { doing, only }: { doing: string; only?: string },
  ): Promise<Response> {
    const deadline = Date.now() + this.timeoutMs
    const bytes = method.encode(request)
    let last: Fault | undefined
    for (;;) {
      const endpoint = await this.ready(deadline, doing, only, last)
      const leftMs = deadline - Date.now()
      // Half of the time for the first try of a read, so that another endpoint gets its chance.
      const attemptMs = method.kind === 'read' && this.all.length > 1 ? Math.max(leftMs / 2, 200) : leftMs
      const outcome = await attempt(endpoint.client!, method.path, bytes, attemptMs, doing, endpoint.url)
      if (!('kind' in outcome)) return method.decode(outcome)
      if (outcome.kind === 'refused') throw outcome.fault
      this.demote(endpoint)
      if (outcome.kind === 'lost' && method.kind === 'write') throw unknownOutcome(outcome.fault, doing)
      last = outcome.fault
      if (Date.now() + roundPauseMs >= deadline) throw last
      await pause(roundPauseMs)
    }
  }

  /** Opens a stream of messages in both directions. */
  async open(
    path: string,
    doing: string,
    options: { requireLeader?: boolean } = {},
  ): Promise<{ stream: ClientDuplexStream<Buffer, Buffer>; url: string; failed(): void }> {
    const endpoint = await this.ready(Date.now() + this.timeoutMs, doing, undefined, undefined)
    const metadata = new Metadata()
    if (options.requireLeader) metadata.set('hasleader', 'true')
    const stream = endpoint.client!.makeBidiStreamRequest(path, identity, identity, metadata)
    return { stream, url: endpoint.url, failed: () => this.demote(endpoint) }
  }

  /** New connections use this certificate; those there are end with what goes on over them. */
  renewTls(tls: TlsSource): void {
    this.tls = tls
    this.disconnect()
  }

  close(): void {
    this.closed = true
    this.disconnect()
  }

  private disconnect(): void {
    for (const endpoint of this.all) {
      endpoint.client?.close()
      endpoint.client = undefined
    }
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
    const first = candidates[0]!
    if (isReady(first)) return first
    for (const endpoint of candidates) this.connect(endpoint, doing)
    const attempts = candidates.map(async (endpoint, place) => {
      if (place > 0) await pause(headStartMs * place)
      await waitForReady(endpoint, deadline)
      return endpoint
    })
    try {
      return await Promise.any(attempts)
    } catch (error) {
      const causes = (error as AggregateError).errors as Error[]
      const where = candidates.map((endpoint) => endpoint.url).join(', ')
      throw (
        last ?? new Fault('STORE_UNREACHABLE', `${doing}: no connection to ${where}`, { cause: causes[0] })
      )
    }
  }

  /** A client reconnects with what it was made with, so one that is not connected makes room for one with the present certificate. */
  private connect(endpoint: Endpoint, doing: string): void {
    if (isReady(endpoint)) return
    const tls = endpoint.secure ? this.present(doing) : undefined
    if (endpoint.client && sameTls(endpoint.tls, tls)) return
    endpoint.client?.close()
    endpoint.tls = tls
    endpoint.client = new Client(endpoint.target, this.credentials(endpoint), {
      ...channelOptions,
      ...(isIP(hostOf(endpoint)) ? { 'grpc.ssl_target_name_override': serverNameForAddresses } : {}),
    })
  }

  private present(doing: string): ClientTls | undefined {
    if (typeof this.tls !== 'function') return this.tls
    try {
      return this.tls()
    } catch (cause) {
      throw new Fault('STORE_UNREACHABLE', `${doing}: there is no certificate to connect with`, { cause })
    }
  }

  private credentials(endpoint: Endpoint): ChannelCredentials {
    if (!endpoint.secure) return credentials.createInsecure()
    const { ca, cert, key } = endpoint.tls ?? {}
    const host = hostOf(endpoint)
    return credentials.createSsl(bufferOf(ca), bufferOf(key), bufferOf(cert), {
      checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
    })
  }
}

function parseEndpoint(url: string): Endpoint {
  const match = /^(https?):\/\/([^/]+?)\/?$/.exec(url)
  if (match === null)
    throw new Fault('STORE_INVALID', `endpoint ${url} is not http://HOST:PORT or https://HOST:PORT`)
  return { url, target: match[2]!, secure: match[1] === 'https', client: undefined, tls: undefined }
}

function hostOf(endpoint: Endpoint): string {
  return endpoint.target.replace(/:[0-9]+$/, '').replace(/^\[(.*)\]$/, '$1')
}

function sameTls(a: ClientTls | undefined, b: ClientTls | undefined): boolean {
  const parts = (tls: ClientTls | undefined): string =>
    [tls?.ca, tls?.cert, tls?.key].map((part) => part?.toString() ?? '').join()
  return a === b || parts(a) === parts(b)
}

function isReady(endpoint: Endpoint): boolean {
  return endpoint.client?.getChannel().getConnectivityState(true) === connectivityState.READY
}

function waitForReady(endpoint: Endpoint, deadline: number): Promise<void> {
  return new Promise((resolve, reject) => {
    if (endpoint.client === undefined) reject(new Error('client closed'))
    else endpoint.client.waitForReady(deadline, (error) => (error ? reject(error) : resolve()))
  })
}

/** One try at one endpoint: the answer, or what its absence means. */
function attempt(
  client: Client,
  path: string,
  request: Buffer,
  timeoutMs: number,
  doing: string,
  url: string,
): Promise<Buffer | Failure> {
  return new Promise((resolve) => {
    const done = (error: ServiceError | null, answer?: Buffer) =>
      resolve(error === null && answer !== undefined ? answer : readFailure(error!, doing, url))
    client.makeUnaryRequest(
      path,
      identity,
      identity,
      request,
      new Metadata(),
      { deadline: Date.now() + timeoutMs },
      done,
    )
  })
}

function identity(bytes: Buffer): Buffer {
  return bytes
}

function bufferOf(text: string | Buffer | undefined): Buffer | null {
  return text === undefined ? null : Buffer.from(text)
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
