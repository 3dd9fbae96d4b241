import { spawn } from 'node:child_process'
import type { HeldLease } from '@kiln/etcd-api'
import { RangeRequest_SortOrder, RangeRequest_SortTarget } from '@kiln/etcd-api/rpc'
import { Fault } from '@kiln/service'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import { printPairs, rangeOf } from './keys.ts'
import { untilAborted } from './lease.ts'
import type { KvPorts } from './ports.ts'
import { leaf, type Session } from './session.ts'
import { base64, safeText, wholeBigint } from './text.ts'

/** How long one waits for its turn before it asks again. */
const turnWaitMs = 24 * 3600 * 1000
const ttlDefault = '10'

/** `kiln kv lock|elect`. */
export function addLockCommands(kv: Command, ports: KvPorts): void {
  leaf(
    kv
      .command('lock')
      .description('wait for a lock and hold it until Ctrl-C, or while a command runs')
      .argument('<name>')
      .argument(
        '[command...]',
        'after --: it runs with ETCD_LOCK_KEY and ETCD_LOCK_REV, its exit code is ours',
      )
      .option('--ttl <seconds>', 'how long the lock outlives a holder that is gone', ttlDefault),
    ports,
    lock,
  )
  leaf(
    kv
      .command('elect')
      .description('wait to be the leader of an election and stay it until Ctrl-C')
      .argument('<election>')
      .argument('[proposal]', 'what the leader says of itself')
      .option('-l, --listen', 'do not stand: print each leader')
      .option('--ttl <seconds>', 'how long the leadership outlives a leader that is gone', ttlDefault),
    ports,
    elect,
  )
}

async function lock(
  session: Session,
  [name = '', ...command]: string[],
  flags: { ttl: string },
): Promise<void> {
  await withTurn(session, flags.ttl, `lock ${name}`, async (lease, over) => {
    const request = { name: session.bytes(name), lease: lease.id }
    const got = await first(
      over,
      session.call(calls.lock, request, `lock ${name}`, { timeoutMs: turnWaitMs }),
    )
    if (got === undefined) return
    const revision = (got.header?.revision ?? 0n).toString()
    if (command.length > 0) {
      const holder = { ETCD_LOCK_KEY: safeText(got.key), ETCD_LOCK_REV: revision }
      session.ports.exit(await run(command, holder, session.ports, over))
      return
    }
    if (session.format === 'json') session.json({ key: base64(got.key), revision })
    else session.ports.print(safeText(got.key))
    await untilAborted(undefined, over)
  })
}

async function elect(
  session: Session,
  args: string[],
  flags: { listen?: boolean; ttl: string },
): Promise<void> {
  const [name = '', proposal] = args
  if (flags.listen === true) {
    if (proposal !== undefined) throw new Fault('USAGE', 'a proposal, and --listen')
    return listen(session, name)
  }
  if (proposal === undefined) throw new Fault('USAGE', 'a proposal, or --listen')
  await withTurn(session, flags.ttl, `election ${name}`, async (lease, over) => {
    const request = { name: session.bytes(name), lease: lease.id, value: session.bytes(proposal) }
    const doing = `stand for ${name}`
    const won = await first(over, session.call(calls.campaign, request, doing, { timeoutMs: turnWaitMs }))
    if (won === undefined) return
    const key = won.leader?.key ?? new Uint8Array()
    if (session.format === 'json')
      session.json({
        key: base64(key),
        revision: (won.leader?.rev ?? 0n).toString(),
        value: base64(request.value),
      })
    else {
      session.ports.print(safeText(key))
      session.ports.print(safeText(request.value))
    }
    await untilAborted(undefined, over)
  })
}

/** Prints who leads, whenever that changes: the oldest of the keys below the election's name. */
async function listen(session: Session, name: string): Promise<void> {
  const { store, ports } = session
  const range = rangeOf(session, [name], {})
  const below = Buffer.concat([range.key, Buffer.from('/')])
  const end = Buffer.concat([range.key, Buffer.from('0')])
  let shown = ''
  const look = async (): Promise<bigint> => {
    const answer = await session.call(
      calls.range,
      {
        key: below,
        rangeEnd: end,
        limit: 1n,
        sortOrder: RangeRequest_SortOrder.ASCEND,
        sortTarget: RangeRequest_SortTarget.CREATE,
      },
      `leader of ${name}`,
    )
    const pair = answer.kvs[0]
    const now = pair === undefined ? '' : `${base64(pair.key)} ${pair.modRevision}`
    if (pair !== undefined && now !== shown) {
      if (session.format === 'json')
        session.json({
          key: base64(pair.key),
          revision: pair.createRevision.toString(),
          value: base64(pair.value),
        })
      else printPairs(session, [pair], false)
    }
    shown = now
    return answer.header?.revision ?? 0n
  }
  const revision = await look()
  const changes = store.watch(below, { rangeEnd: end, startRevision: revision + 1n, signal: ports.signal })
  for await (const _change of changes) await look()
}

/**
 * Holds a lease while `work` waits for its turn and uses it; its end, and with it that of the lock, is the end of the work. Closing the
 * lease gives the turn back, also one that only waits.
 */
async function withTurn(
  session: Session,
  ttl: string,
  what: string,
  work: (lease: HeldLease, over: AbortSignal) => Promise<void>,
): Promise<void> {
  const { store, ports } = session
  const lost = new AbortController()
  const lease = await store.holdLease({
    ttlSeconds: Number(wholeBigint(ttl)),
    onLost: () => lost.abort(),
    onTrouble: (fault) => ports.note(`${fault.message}; going on`),
  })
  try {
    await work(lease, AbortSignal.any([ports.signal, lost.signal]))
    if (lost.signal.aborted && !ports.signal.aborted)
      throw new Fault('STORE_LEASE_NOT_FOUND', `${what}: its lease ran out, another may have it now`)
  } finally {
    await lease.close()
  }
}

/** What is asked for, or nothing once it is over. */
async function first<T>(over: AbortSignal, asked: Promise<T>): Promise<T | undefined> {
  const end = untilAborted(undefined, over).then(() => undefined)
  asked.catch(() => {})
  return Promise.race([asked, end])
}

function run(
  [program = '', ...args]: string[],
  holder: Record<string, string>,
  ports: KvPorts,
  over: AbortSignal,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'inherit', env: { ...ports.environment, ...holder } })
    const stop = (): void => void child.kill('SIGTERM')
    over.addEventListener('abort', stop, { once: true })
    child.once('error', (cause) =>
      reject(new Fault('PROGRAM_MISSING', `${program} cannot be started`, { cause })),
    )
    child.once('exit', (code) => {
      over.removeEventListener('abort', stop)
      resolve(code ?? 1)
    })
  })
}
