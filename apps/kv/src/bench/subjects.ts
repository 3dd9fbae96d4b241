import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import https from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { EtcdClient } from '@kiln/etcd-api'
import { enableAuth } from '../testing/auth-calls.ts'
import { fetchEtcd } from '../testing/etcdctl.ts'
import { freePorts } from '../testing/member-process.ts'
import { type TestCertificates, writeTestCertificates } from '../testing/test-certificates.ts'

/** A server that is measured, as processes of its own with their data on disk. */
export type Subject = {
  name: 'etcd' | 'kiln-kv'
  version: string
  /** Of the leader, where writes and linearizable reads are cheapest for either. */
  host: string
  port: number
  /** User and system time of all its processes so far, in seconds. */
  cpuSeconds(): Promise<number>
  rssMiB(): Promise<number>
  /** Syncs of the leader's log so far, from its metrics. */
  syncs(): Promise<number>
  /** File with the CA, if it has TLS. */
  ca?: string
  /** Of a user who may write the keys of the rows, if there are users. */
  token?: string
  stop(): Promise<void>
}

export type SubjectOptions = {
  members: number
  /** Where the data goes; default the system's for temporary files. */
  folder?: string | undefined
  tls?: boolean | undefined
  users?: boolean
}

/** The same for both, printed with the figures. */
export const subjectFlags = [
  '--quota-backend-bytes=8589934592',
  '--snapshot-count=100000',
  '--auto-compaction-mode=revision',
  '--auto-compaction-retention=1000000',
]

const startTimeoutMs = 60_000
const ticksPerSecond = 100

export async function startSubject(
  name: Subject['name'],
  { members, folder, tls = false, users = false }: SubjectOptions,
): Promise<Subject> {
  const parent = await mkdtemp(join(folder ?? tmpdir(), 'kiln-bench-'))
  const program = name === 'etcd' ? [(await fetchEtcd()).etcd] : [process.execPath, kilnKv]
  const ports = await freePorts(members * 2)
  const peerUrl = (at: number): string => `http://127.0.0.1:${ports[at * 2 + 1]}`
  const cluster = Array.from({ length: members }, (_, at) => `m${at}=${peerUrl(at)}`).join(',')
  const urls = Array.from(
    { length: members },
    (_, at) => `${tls ? 'https' : 'http'}://127.0.0.1:${ports[at * 2]}`,
  )
  const files = tls ? await writeTestCertificates(parent) : undefined
  const children = urls.map((url, at) =>
    spawn(
      program[0]!,
      [
        ...program.slice(1),
        `--name=m${at}`,
        `--data-dir=${join(parent, `m${at}`)}`,
        `--listen-client-urls=${url}`,
        `--advertise-client-urls=${url}`,
        `--listen-peer-urls=${peerUrl(at)}`,
        `--initial-advertise-peer-urls=${peerUrl(at)}`,
        `--initial-cluster=${cluster}`,
        '--log-level=error',
        ...subjectFlags,
        ...(files ? [`--cert-file=${files.cert}`, `--key-file=${files.key}`] : []),
      ],
      { stdio: 'ignore' },
    ),
  )
  const stop = async (): Promise<void> => {
    await Promise.all(children.map(endChild))
    await rm(parent, { recursive: true, force: true })
  }
  try {
    const leader = await findLeader(urls, files)
    const { hostname, port } = new URL(leader)
    const pids = children.map(({ pid }) => pid!)
    return {
      name,
      version: await versionOf(program),
      host: hostname,
      port: Number(port),
      cpuSeconds: () => sum(pids, cpuSecondsOf),
      rssMiB: () => sum(pids, rssMiBOf),
      syncs: () => syncsOf(leader, files),
      ...(files ? { ca: files.ca } : {}),
      ...(users ? { token: await addUsers(leader) } : {}),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

const kilnKv = join(import.meta.dirname, '../main.ts')

async function findLeader(urls: readonly string[], files?: TestCertificates): Promise<string> {
  const client = new EtcdClient({
    endpoints: urls,
    timeoutMs: 5_000,
    ...(files ? { tls: await readCertificates(files) } : {}),
  })
  const deadline = Date.now() + startTimeoutMs
  try {
    for (;;) {
      const statuses = await Promise.all(urls.map((url) => client.status(url).catch(() => undefined)))
      const at = statuses.findIndex((one) => one && one.leaderId !== 0n && one.leaderId === one.memberId)
      if (at >= 0 && statuses.every((status) => status !== undefined)) return urls[at]!
      if (Date.now() > deadline) throw new Error(`no leader behind ${urls.join(', ')}`)
      await new Promise((resume) => setTimeout(resume, 100))
    }
  } finally {
    client.close()
  }
}

async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000)
  await exited
  clearTimeout(timer)
}

async function versionOf([command, ...args]: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(command!, [...args, '--version'])
  return /Version: *([\w.]+)/.exec(stdout)?.[1] ?? stdout.split('\n')[0]!
}

async function sum(pids: readonly number[], of: (pid: number) => Promise<number>): Promise<number> {
  return (await Promise.all(pids.map(of))).reduce((total, one) => total + one, 0)
}

/** proc(5): fields 14 and 15 of stat, counted behind the name, which may hold anything. */
async function cpuSecondsOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

async function rssMiBOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024
}

async function syncsOf(url: string, files?: TestCertificates): Promise<number> {
  const text = files
    ? await getOverTls(`${url}/metrics`, files)
    : await (await fetch(`${url}/metrics`)).text()
  return Number(/^etcd_disk_wal_fsync_duration_seconds_count (\S+)$/m.exec(text)?.[1] ?? 0)
}

async function getOverTls(url: string, files: TestCertificates): Promise<string> {
  const { ca } = await readCertificates(files)
  return new Promise((resolve, reject) => {
    const request = https.get(url, { ca, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        text += part
      })
      response.on('end', () => resolve(text))
    })
    request.on('error', reject)
  })
}

async function readCertificates({ ca, cert, key }: TestCertificates) {
  const [authority, certificate, secret] = await Promise.all(
    [ca, cert, key].map((file) => readFile(file, 'utf8')),
  )
  return { ca: authority!, cert: certificate!, key: secret! }
}

/** Users on, and one with a role on the keys of the rows, so that every request is checked; root would not be. */
async function addUsers(url: string): Promise<string> {
  const { root } = await enableAuth(url)
  const outcomes = [
    await root.roleAdd('bench'),
    await root.roleGrant('bench', 'k', 'l'),
    await root.userAdd('bench', 'bench'),
    await root.userGrant('bench', 'bench'),
  ]
  const bad = outcomes.find((outcome) => outcome !== '0 ')
  if (bad !== undefined) throw new Error(`users could not be set up: ${bad}`)
  return (await root.authenticate('bench', 'bench')).token
}
