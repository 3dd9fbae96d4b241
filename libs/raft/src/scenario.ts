import { type Membership, type MembershipChange, noMembers } from './membership.ts'
import { decodeMembershipEntry, encodeMembershipEntry } from './membership-codec.ts'
import { appliedTerm, propose, step, takeEffects } from './raft.ts'
import { createRaft, type Raft, type Recovered } from './state.ts'
import type { Effects, Entry, Message, NodeId, Persist, SnapshotMeta } from './types.ts'

/** A member with a disk that keeps only what was written, and a state machine that is the text of its entries. */
type Node = {
  id: NodeId
  raft: Raft
  disk: Recovered
  /** As it was before the last write. */
  diskBefore: Recovered
  /** Snapshots that are on the disk or on their way, by index. */
  machine: string
  writes: Persist[]
  diskHeld: boolean
  up: boolean
}

const electionTicks = 10
const tickMs = 100

/**
 * Runs commands against a cluster without time or chance: after each command everything that can happen happens. It serves the
 * scenario tests; the commands are the `case`s below.
 */
export function runScenario(): (lines: readonly string[]) => string {
  const nodes = new Map<NodeId, Node>()
  const cuts = new Set<string>()
  const dropped = new Set<string>()
  /** Messages that wait for a connection, by the member they are for. */
  const held = new Map<NodeId, Message[]>()
  const snapshots = new Map<number, string>()
  let wires: Message[] = []
  let notes: string[] = []
  let now = 0
  let leaseMs = 0

  const node = (text: string): Node => {
    const found = nodes.get(BigInt(text))
    if (found === undefined) throw new Error(`no member ${text}`)
    return found
  }
  const start = (id: NodeId, disk: Recovered): Node => ({
    id,
    raft: createRaft({ id, electionTicks, leaseMs }, disk),
    disk,
    diskBefore: disk,
    machine: snapshots.get(disk.snapshot.index) ?? '',
    writes: [],
    diskHeld: false,
    up: true,
  })

  function handle(at: Node, effects: Effects): boolean {
    wires.push(...effects.messages)
    if (effects.persist) at.writes.push(effects.persist)
    if (effects.install) at.machine = snapshots.get(effects.install.index) ?? '?'
    for (const entry of effects.committed) {
      at.machine += text(entry)
      if (entry.kind === 'config') notes.push(`${at.id} applied ${text(entry)}`)
    }
    for (const read of effects.reads) notes.push(`${at.id} may read at ${read.index}`)
    if (effects.released) notes.push(`${at.id} votes again`)
    for (const to of effects.snapshots) sendSnapshot(at, to)
    let moved = effects.messages.length > 0 || effects.snapshots.length > 0 || effects.committed.length > 0
    while (!at.diskHeld && at.writes.length > 0) {
      const write = at.writes.shift()!
      if (write.hardState) at.diskBefore = at.disk
      at.disk = written(at.disk, write)
      wires.push(...write.messages)
      step(at.raft, { kind: 'persisted', seq: write.seq, lastIndex: write.lastIndex })
      moved = true
    }
    return moved
  }

  function sendSnapshot(from: Node, to: NodeId): void {
    const { snapshot, term } = from.raft
    const reachable = nodes.get(to)?.up === true && !cuts.has(`${from.id}>${to}`)
    notes.push(`${from.id} sends snapshot ${snapshot.index} to ${to}${reachable ? '' : ', in vain'}`)
    if (reachable) wires.push({ type: 'snapshot', from: from.id, to, term, snapshot })
    step(from.raft, { kind: 'snapshot-sent', to, ok: reachable })
  }

  function settle(): void {
    for (let round = 0; round < 1000; round++) {
      let moved = false
      for (const at of nodes.values()) if (at.up) moved = handle(at, takeEffects(at.raft)) || moved
      const sent = wires
      wires = []
      for (const message of sent) {
        const queue = held.get(message.to)
        if (queue !== undefined) {
          queue.push(message)
          continue
        }
        const target = nodes.get(message.to)
        if (!target?.up || cuts.has(`${message.from}>${message.to}`) || dropped.has(message.type)) continue
        step(target.raft, { kind: 'message', message, now })
        moved = true
      }
      if (!moved) return
    }
    throw new Error('the members do not come to rest')
  }

  function execute(line: string): void {
    const [command, ...words] = line.split(' ')
    const [first = '', second = ''] = words
    switch (command) {
      case 'cluster': {
        nodes.clear()
        cuts.clear()
        dropped.clear()
        const option = (name: string): NodeId[] =>
          (words.find((word) => word.startsWith(`${name}=`)) ?? '')
            .slice(name.length + 1)
            .split(',')
            .filter((id) => id !== '')
            .map(BigInt)
        leaseMs = Number(words.find((word) => word.startsWith('lease='))?.slice(6) ?? 0)
        const membership = { voters: option('voters'), learners: option('learners') }
        // The log begins after an entry that nobody has, so that a new member needs a snapshot: it tells the members.
        const snapshot = { index: 1, term: 1, membership }
        snapshots.set(1, '')
        for (const id of [...membership.voters, ...membership.learners]) {
          nodes.set(id, start(id, { hardState: { term: 1, vote: 0n, commit: 1 }, snapshot, entries: [] }))
        }
        // Whoever is to lead may do so at once.
        for (const { raft } of nodes.values()) raft.sinceHeard = electionTicks
        for (const id of option('leader')) step(nodes.get(id)!.raft, { kind: 'campaign' })
        break
      }
      case 'new':
        // A machine with an empty disk that waits to be added.
        nodes.set(
          BigInt(first),
          start(BigInt(first), {
            hardState: { term: 0, vote: 0n, commit: 0 },
            snapshot: { index: 0, term: 0, membership: noMembers },
            entries: [],
          }),
        )
        break
      case 'tick':
        for (let n = 0; n < Number(first); n++) {
          now += tickMs
          for (const at of nodes.values()) {
            // Lower ids lose patience first.
            const random = Math.min(0.99, Number(at.id) / 10)
            if (!at.up || (second !== '' && at !== node(second))) continue
            step(at.raft, { kind: 'tick', random, now })
          }
          settle()
        }
        break
      case 'campaign':
        step(node(first).raft, { kind: 'campaign' })
        break
      case 'propose': {
        const data = new TextEncoder().encode(second)
        const outcome = propose(node(first).raft, [{ kind: 'data', data }])
        if (!outcome.accepted) notes.push(`${first} refuses: ${outcome.reason}`)
        break
      }
      case 'change': {
        // Pairs of operation and member; more than one enter a joint configuration.
        const changes: MembershipChange[] = []
        for (let at = 1; at < words.length; at += 2) {
          const op = words[at] as MembershipChange['op']
          changes.push({ op, id: BigInt(words[at + 1]!), context: new Uint8Array(0) })
        }
        const data = encodeMembershipEntry(
          changes.length === 1 ? { kind: 'change', change: changes[0]! } : { kind: 'enter', changes },
        )
        const outcome = propose(node(first).raft, [{ kind: 'config', data }])
        if (!outcome.accepted) notes.push(`${first} refuses: ${outcome.reason}`)
        break
      }
      case 'read':
        step(node(first).raft, { kind: 'read', context: 1, now })
        break
      case 'unreachable':
        step(node(first).raft, { kind: 'unreachable', id: BigInt(second) })
        break
      case 'transfer':
        step(node(first).raft, { kind: 'transfer', to: BigInt(second) })
        break
      case 'compact': {
        const at = node(first)
        const { applied, membership } = at.raft
        const snapshot: SnapshotMeta = { index: applied, term: appliedTerm(at.raft), membership }
        snapshots.set(applied, at.machine)
        at.disk = {
          hardState: at.disk.hardState,
          snapshot,
          entries: at.disk.entries.filter((entry) => entry.index > applied),
        }
        step(at.raft, { kind: 'compacted', snapshot, keepAfter: applied })
        break
      }
      case 'isolate':
        for (const other of nodes.keys()) {
          cuts.add(`${first}>${other}`)
          cuts.add(`${other}>${first}`)
        }
        break
      case 'cut':
        for (const direction of words) cuts.add(direction)
        break
      case 'drop':
        // Messages of these types are lost until `heal`.
        for (const type of words) dropped.add(type)
        break
      case 'hold-wire':
        // Messages to this member wait until `release-wire`, in order.
        held.set(BigInt(first), [])
        break
      case 'release-wire':
        wires.push(...(held.get(BigInt(first)) ?? []))
        held.delete(BigInt(first))
        break
      case 'heal':
        cuts.clear()
        dropped.clear()
        break
      case 'hold-disk':
        node(first).diskHeld = true
        break
      case 'release-disk':
        node(first).diskHeld = false
        break
      case 'crash':
        node(first).up = false
        break
      case 'restart': {
        // `forget-vote` is a broken disk, `lost=N` one that lost its last N entries and knows it, `lost-write` its last write.
        const { id } = node(first)
        const disk = second === 'lost-write' ? node(first).diskBefore : node(first).disk
        const hardState = { ...disk.hardState, vote: second === 'forget-vote' ? 0n : disk.hardState.vote }
        const lost = second.startsWith('lost=') ? Number(second.slice(5)) : 0
        const entries = disk.entries.slice(0, disk.entries.length - lost)
        const last = disk.snapshot.index + entries.length
        hardState.commit = Math.min(hardState.commit, last)
        const fresh = start(id, { ...disk, hardState, entries })
        fresh.raft.mayVote = lost === 0 && second !== 'lost-write'
        nodes.set(id, fresh)
        break
      }
      default:
        throw new Error(`unknown command ${command}`)
    }
    settle()
  }

  return (lines) => {
    notes = []
    for (const line of lines) execute(line)
    const leaders = [...nodes.values()].filter((at) => at.up && at.raft.role === 'leader')
    const terms = leaders.map((at) => at.raft.term)
    if (new Set(terms).size !== terms.length) notes.push('TWO LEADERS IN ONE TERM')
    return [...notes, ...[...nodes.values()].map(describe)].join('\n')
  }
}

function written(disk: Recovered, write: Persist): Recovered {
  const base = write.snapshot ? { ...disk, snapshot: write.snapshot, entries: [] } : disk
  const first = write.entries[0]?.index ?? Number.POSITIVE_INFINITY
  return {
    hardState: write.hardState ?? base.hardState,
    snapshot: base.snapshot,
    entries: [...base.entries.filter((entry) => entry.index < first), ...write.entries],
  }
}

function text(entry: Entry): string {
  switch (entry.kind) {
    case 'data':
      return new TextDecoder().decode(entry.data)
    case 'config':
      return `<${describeEntry(entry.data)}>`
    case 'empty':
      return '.'
  }
}

function describeEntry(data: Uint8Array): string {
  const entry = decodeMembershipEntry(data)
  return entry.kind === 'change' ? `${data[0]}:${entry.change.id}` : entry.kind
}

/** ` joint=1,4/1,2,3`: the voters to be and those that were. */
function describeJoint({ voters, joint }: Membership): string {
  return joint === undefined ? '' : ` joint=${voters.join()}/${joint.outgoing.join()}`
}

/** `2 follower term=1 committed=2 log=1:. 1:x`, where the log begins after its snapshot. */
function describe(at: Node): string {
  const { raft } = at
  const log = raft.log.entries.map((entry) => `${entry.term}:${text(entry)}`).join(' ')
  const base = raft.log.baseIndex > 0 ? `(${raft.log.baseIndex}) ` : ''
  const state = at.up ? raft.role : 'down'
  const joint = describeJoint(raft.membership)
  return `${at.id} ${state} term=${raft.term}${joint} committed=${raft.committed} applied=${at.machine || '-'} log=${base}${log}`.trimEnd()
}
