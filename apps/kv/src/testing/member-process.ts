import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const startTimeoutMs = 60_000

export type MemberProcess = {
  name: string
  endpoint: string
  dataDir: string
  /** `main` is another program than this repository's. */
  start(more?: string[], main?: string): Promise<void>
  /** Without a chance to write anything more. */
  kill(): Promise<void>
  stop(): Promise<number | null>
  readonly running: boolean
  readonly pid: number | undefined
  signal(name: 'SIGSTOP' | 'SIGCONT'): void
  /** What it wrote to stderr so far. */
  output(): string
}

export type MemberCluster = {
  members: MemberProcess[]
  endpoints: string[]
  folder: string
  stop(): Promise<void>
}

export type MemberFlags = {
  count: number
  /** Flags of every member. */
  flags?: string[]
  /** Certificates for both sides; URLs are then https. */
  tls?: { cert: string; key: string; ca: string }
  /** Another program than this repository's. */
  main?: string
  /** Of the URLs, when it is not what `tls` makes it. */
  scheme?: 'http' | 'https'
}

/** Members of a cluster as processes on loopback, in a temporary folder, running before this resolves. */
export async function startMembers({ count, flags = [], tls, ...rest }: MemberFlags): Promise<MemberCluster> {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-kv-'))
  const { scheme = tls ? 'https' : 'http' } = rest
  const ports = await freePorts(count * 2)
  const names = Array.from({ length: count }, (_, at) => `m${at + 1}`)
  const peerUrl = (at: number): string => `${scheme}://127.0.0.1:${ports[at * 2 + 1]}`
  const initialCluster = names.map((name, at) => `${name}=${peerUrl(at)}`).join(',')
  const tlsFlags = tls
    ? ['', 'peer-'].flatMap((side) => [
        `--${side}cert-file=${tls.cert}`,
        `--${side}key-file=${tls.key}`,
        `--${side}trusted-ca-file=${tls.ca}`,
        `--${side}client-cert-auth`,
      ])
    : []
  const members = names.map((name, at) =>
    memberProcess(name, `${scheme}://127.0.0.1:${ports[at * 2]}`, peerUrl(at), join(folder, name), [
      `--initial-cluster=${initialCluster}`,
      ...tlsFlags,
      ...flags,
    ]),
  )
  const cluster = {
    members,
    endpoints: members.map(({ endpoint }) => endpoint),
    folder,
    stop: async () => {
      await Promise.all(members.map((member) => member.stop()))
      await rm(folder, { recursive: true, force: true })
    },
  }
  try {
    await Promise.all(members.map((member) => member.start([], rest.main)))
  } catch (error) {
    await cluster.stop()
    throw error
  }
  return cluster
}

/** A member that is not started yet. */
export function memberProcess(
  name: string,
  endpoint: string,
  peerUrl: string,
  dataDir: string,
  flags: string[],
  /** Where peers are told to come, if something stands between. */
  advertisedPeerUrl = peerUrl,
): MemberProcess {
  let child: ChildProcess | undefined
  let output = ''
  const exited = (): Promise<number | null> =>
    new Promise((resolve) => {
      if (!child || child.exitCode !== null || child.signalCode !== null) resolve(child?.exitCode ?? null)
      else child.once('exit', (code) => resolve(code))
    })
  const isRunning = (): boolean => child !== undefined && child.exitCode === null && child.signalCode === null
  return {
    name,
    endpoint,
    dataDir,
    get running() {
      return isRunning()
    },
    get pid() {
      return isRunning() ? child?.pid : undefined
    },
    signal: (name) => void child?.kill(name),
    output: () => output,
    start: async (more = [], main = join(import.meta.dirname, '../main.ts')) => {
      output = ''
      child = spawn(
        process.execPath,
        [
          main,
          `--name=${name}`,
          `--data-dir=${dataDir}`,
          `--listen-client-urls=${endpoint}`,
          `--advertise-client-urls=${endpoint}`,
          `--listen-peer-urls=${peerUrl}`,
          `--initial-advertise-peer-urls=${advertisedPeerUrl}`,
          ...flags,
          ...more,
        ],
        { stdio: ['ignore', 'ignore', 'pipe'] },
      )
      child.stderr!.on('data', (chunk: Buffer) => {
        output = (output + chunk.toString()).slice(-64 * 1024)
      })
      const deadline = Date.now() + startTimeoutMs
      while (!output.includes('"msg":"serving"')) {
        if (!isRunning() || Date.now() > deadline) throw new Error(`${name} did not start: ${output}`)
        await new Promise((resume) => setTimeout(resume, 20))
      }
    },
    kill: async () => {
      child?.kill('SIGKILL')
      await exited()
    },
    stop: async () => {
      child?.kill('SIGTERM')
      return exited()
    },
  }
}

/** Ports that nobody listens on now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const server = createServer().listen(0, '127.0.0.1', () => resolve(server))
        }),
    ),
  )
  const ports = servers.map((server) => (server.address() as { port: number }).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
