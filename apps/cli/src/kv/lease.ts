import { Fault } from '@kiln/service'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import type { KvPorts } from './ports.ts'
import { asJson, leaf, type Session } from './session.ts'
import { hex, idOf, safeText, wholeBigint } from './text.ts'

/** `kiln kv lease grant|revoke|timetolive|list|keep-alive`. */
export function addLeaseCommands(kv: Command, ports: KvPorts): void {
  const lease = kv.command('lease').description('leases: keys that end with their owner')
  leaf(lease.command('grant').description('make a lease').argument('<ttl>', 'seconds'), ports, grant)
  leaf(
    lease.command('revoke').description('end a lease, and its keys with it').argument('<id>'),
    ports,
    async (session, [id = '']) => {
      const answer = await session.call(calls.leaseRevoke, { ID: idOf(id, 'lease') }, `revoke lease ${id}`)
      if (!asJson(session, calls.leaseRevoke, answer)) session.ports.print(`lease ${id} revoked`)
    },
  )
  leaf(
    lease
      .command('timetolive')
      .description('how long a lease has left')
      .argument('<id>')
      .option('--keys', 'and which keys it has'),
    ports,
    timeToLive,
  )
  leaf(lease.command('list').description('all leases'), ports, async (session) => {
    const answer = await session.call(calls.leases, {}, 'list leases')
    if (asJson(session, calls.leases, answer)) return
    session.rows(
      ['LEASE'],
      answer.leases.map(({ ID }) => [hex(ID)]),
    )
  })
  leaf(
    lease
      .command('keep-alive')
      .description('renew a lease until Ctrl-C')
      .argument('<id>')
      .option('--once', 'only once'),
    ports,
    keepAlive,
  )
}

async function grant(session: Session, [ttl = '']: string[]): Promise<void> {
  const answer = await session.call(calls.leaseGrant, { TTL: wholeBigint(ttl) }, 'grant a lease')
  if (!asJson(session, calls.leaseGrant, answer))
    session.ports.print(`lease ${hex(answer.ID)} granted with TTL(${answer.TTL}s)`)
}

async function timeToLive(session: Session, [id = '']: string[], flags: { keys?: boolean }): Promise<void> {
  const request = { ID: idOf(id, 'lease'), keys: flags.keys === true }
  const answer = await session.call(calls.leaseTimeToLive, request, `ask for lease ${id}`)
  const isGone = answer.TTL < 0n
  if (isGone) session.ports.exit(3)
  if (asJson(session, calls.leaseTimeToLive, answer)) return
  if (isGone) session.ports.note(`lease ${id} already expired`)
  else {
    const keys = flags.keys ? `, attached keys([${answer.keys.map(safeText).join(' ')}])` : ''
    session.ports.print(
      `lease ${id} granted with TTL(${answer.grantedTTL}s), remaining(${answer.TTL}s)${keys}`,
    )
  }
}

async function keepAlive(session: Session, [text = '']: string[], flags: { once?: boolean }): Promise<void> {
  const { store, ports } = session
  const id = idOf(text, 'lease')
  while (!ports.signal.aborted) {
    const ttl = await store.leaseKeepAliveOnce(id)
    if (ttl <= 0) throw new Fault('STORE_LEASE_NOT_FOUND', `lease ${text} expired or revoked`)
    if (session.format === 'json') session.json({ ID: id.toString(), TTL: ttl.toString() })
    else ports.print(`lease ${text} keepalived with TTL(${ttl})`)
    if (flags.once) return
    await untilAborted((ttl * 1000) / 3, ports.signal)
  }
}

/** Waits so long, or until the command is to end. */
export function untilAborted(ms: number | undefined, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const timer = ms === undefined ? undefined : setTimeout(done, ms)
    function done(): void {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    signal.addEventListener('abort', done, { once: true })
  })
}
