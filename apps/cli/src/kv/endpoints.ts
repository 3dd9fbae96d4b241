import { EtcdClient } from '@kiln/etcd-api'
import type { JsonValue } from '@kiln/etcd-api/descriptors'
import type { StatusResponse } from '@kiln/etcd-api/rpc'
import { describeError, Fault } from '@kiln/service'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import type { KvPorts } from './ports.ts'
import { type CommonFlags, leaf, type Session } from './session.ts'
import { clientOptions, storeAddress } from './settings.ts'
import { hex, size, wholeBigint } from './text.ts'

type EndpointFlags = CommonFlags & { cluster?: boolean; rev?: string }

/** What one endpoint said, or why it said nothing. */
type Told<T> = { endpoint: string; tookMs: number } & ({ answer: T } | { fault: Fault })

/** `kiln kv endpoint status|health|hashkv`, and `defrag`, which is asked of each member too. */
export function addEndpointCommands(kv: Command, ports: KvPorts): void {
  const endpoint = kv.command('endpoint').description('members as they answer themselves')
  const each = (parent: Command, name: string, description: string): Command =>
    parent
      .command(name)
      .description(description)
      .option('--cluster', 'all members of the cluster, not only the endpoints named')
  leaf(each(endpoint, 'status', 'version, size, leader and log of each'), ports, status)
  leaf(each(endpoint, 'health', 'whether each answers a read the cluster agrees to'), ports, health)
  leaf(
    each(endpoint, 'hashkv', 'hash of the history of each').option('--rev <n>', 'up to this revision'),
    ports,
    hashKv,
  )
  leaf(each(kv, 'defrag', 'give back the free space of each'), ports, defrag)
}

async function status(session: Session, _args: string[], flags: EndpointFlags): Promise<void> {
  const told = await askEach(session, flags, (store, endpoint) =>
    store.call(calls.status, calls.status.requestOf({}), { doing: 'ask for status', only: endpoint }),
  )
  conclude(session, told)
  if (session.format === 'json')
    return session.json(told.map((one) => outcomeJson(one, 'status', (answer) => calls.status.json(answer))))
  session.rows(
    [
      'ENDPOINT',
      'ID',
      'VERSION',
      'DB SIZE',
      'IN USE',
      'LEADER',
      'LEARNER',
      'TERM',
      'INDEX',
      'APPLIED',
      'ERRORS',
    ],
    told.flatMap((one) => ('answer' in one ? [statusRow(one.endpoint, one.answer)] : [])),
  )
}

function statusRow(endpoint: string, answer: StatusResponse): string[] {
  const id = answer.header?.memberId ?? 0n
  return [
    endpoint,
    hex(id),
    answer.version,
    size(answer.dbSize),
    size(answer.dbSizeInUse),
    String(answer.leader === id),
    String(answer.isLearner),
    String(answer.raftTerm),
    String(answer.raftIndex),
    String(answer.raftAppliedIndex),
    answer.errors.join('; '),
  ]
}

async function health(session: Session, _args: string[], flags: EndpointFlags): Promise<void> {
  const told = await askEach(session, flags, async (store, endpoint) => {
    const options = { doing: 'read', only: endpoint }
    const range = calls.range.requestOf({ key: Buffer.from('health') })
    const read = store.call(calls.range, range, options).catch((error: unknown) => {
      // Whoever may not read the key was answered all the same.
      if (!(error instanceof Fault && error.code === 'STORE_DENIED')) throw error
    })
    const alarms = store.call(calls.alarm, calls.alarm.requestOf({}), options)
    const [{ alarms: raised }] = await Promise.all([alarms, read])
    if (raised.length > 0)
      throw new Fault(
        'STORE_UNHEALTHY',
        `alarms are raised at ${raised.map((one) => hex(one.memberID)).join(', ')}`,
      )
    return true
  })
  conclude(session, told)
  const rows = told.map((one) => ({
    endpoint: one.endpoint,
    health: 'answer' in one,
    took: `${one.tookMs.toFixed(1)}ms`,
    ...('fault' in one ? { error: one.fault.message } : {}),
  }))
  if (session.format === 'json') session.json(rows)
  else
    session.rows(
      ['ENDPOINT', 'HEALTHY', 'TOOK', 'ERROR'],
      rows.map((row) => [row.endpoint, String(row.health), row.took, row.error ?? '']),
    )
}

async function hashKv(session: Session, _args: string[], flags: EndpointFlags): Promise<void> {
  const revision = flags.rev === undefined ? 0n : wholeBigint(flags.rev)
  const told = await askEach(session, flags, (store, endpoint) =>
    store.call(calls.hashKv, calls.hashKv.requestOf({ revision }), {
      doing: 'ask for the hash',
      only: endpoint,
    }),
  )
  conclude(session, told)
  if (session.format === 'json')
    return session.json(told.map((one) => outcomeJson(one, 'hashkv', (answer) => calls.hashKv.json(answer))))
  session.rows(
    ['ENDPOINT', 'HASH', 'REVISION', 'COMPACTED'],
    told.flatMap((one) =>
      'answer' in one
        ? [
            [
              one.endpoint,
              String(one.answer.hash),
              String(one.answer.hashRevision),
              String(one.answer.compactRevision),
            ],
          ]
        : [],
    ),
  )
}

/** One after the other, so that a cluster never has all its members at it. */
async function defrag(session: Session, _args: string[], flags: EndpointFlags): Promise<void> {
  const told = await askEach(
    session,
    flags,
    async (store, endpoint) => {
      const size = async (): Promise<bigint> => (await store.status(endpoint)).dbSizeBytes
      const before = await size()
      const options = { doing: 'defragment', only: endpoint, timeoutMs: 600_000 }
      await store.call(calls.defragment, calls.defragment.requestOf({}), options)
      return { before, after: await size() }
    },
    true,
  )
  conclude(session, told)
  if (session.format === 'json')
    return session.json(
      told.map((one) =>
        outcomeJson(one, 'bytes', ({ before, after }) => ({
          before: before.toString(),
          after: after.toString(),
        })),
      ),
    )
  for (const one of told)
    if ('answer' in one)
      session.ports.print(
        `${one.endpoint}: ${size(one.answer.before)} before, ${size(one.answer.after)} now, ${(one.tookMs / 1000).toFixed(1)} s`,
      )
}

/** Asks every endpoint by itself; says how far it is where that takes its time. */
async function askEach<T>(
  session: Session,
  flags: EndpointFlags,
  ask: (store: EtcdClient, endpoint: string) => Promise<T>,
  inTurn = false,
): Promise<Told<T>[]> {
  const { ports } = session
  const address = storeAddress(flags, ports.environment)
  let { endpoints } = address
  if (flags.cluster) endpoints = (await session.store.memberList()).flatMap(({ clientUrls }) => clientUrls)
  if (endpoints.length === 0) throw new Fault('STORE_UNREACHABLE', 'no member has a client URL')
  const store = new EtcdClient({ ...(await clientOptions(address, ports)), endpoints })
  const one = async (endpoint: string): Promise<Told<T>> => {
    const began = performance.now()
    const tookMs = (): number => performance.now() - began
    try {
      return { endpoint, answer: await ask(store, endpoint), tookMs: tookMs() }
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      return { endpoint, fault: error, tookMs: tookMs() }
    }
  }
  try {
    if (!inTurn) return await Promise.all(endpoints.map(one))
    const told: Told<T>[] = []
    for (const [at, endpoint] of endpoints.entries()) {
      if (ports.signal.aborted) throw new Fault('CANCELLED', `${at} of ${endpoints.length} were done`)
      ports.note(`${at + 1}/${endpoints.length} ${endpoint}`)
      told.push(await one(endpoint))
    }
    return told
  } finally {
    store.close()
  }
}

/** Some that failed are a partial success; all, the failure of the first. */
function conclude<T>({ ports }: Session, told: readonly Told<T>[]): void {
  const faults = told.flatMap((one) => ('fault' in one ? [one.fault] : []))
  if (faults.length === told.length) ports.fail(faults[0]!)
  else if (faults.length > 0) ports.exit(8)
  for (const fault of faults) ports.note(describeError(fault))
}

function outcomeJson<T>(
  one: Told<T>,
  name: string,
  json: (answer: T) => JsonValue,
): { [key: string]: JsonValue } {
  return 'answer' in one
    ? { endpoint: one.endpoint, [name]: json(one.answer) }
    : { endpoint: one.endpoint, error: { code: one.fault.code, message: one.fault.message } }
}
