import {
  appliedTerm,
  applyMembershipEntry,
  createRaft,
  type Effects,
  type Entry,
  encodeMembershipEntry,
  lastIndex,
  type Membership,
  type MembershipChange,
  type MembershipEntry,
  type Message,
  type NodeId,
  noMembers,
  type Persist,
  propose,
  type Raft,
  type Recovered,
  step,
  takeEffects,
  termAt,
} from '@kiln/raft'
import { Random } from '@kiln/simulation'

type CoreNode = {
  id: NodeId
  raft: Raft
  up: boolean
  /** What is durable, and the writes that are not yet, oldest first. */
  disk: Recovered
  writes: Persist[]
}

const machines = 6
const wiresMax = 25

/**
 * The core alone, in random steps without time: messages in any order, lost and repeated, writes that take as long as they like, crashes
 * that lose those under way, members that come and go one by one and several at once. Many more decisions for a second of CPU than the
 * whole store makes, and so it finds what takes a rare order of events. `breach` is what is wrong, if anything is.
 */
export function runCore({ seed, steps }: { seed: number; steps: number }): {
  breach: string | undefined
  figures: { entries: number; terms: number; joint: number }
} {
  const run = new CoreRun(new Random(seed))
  let breach: string | undefined
  try {
    for (let n = 0; n < steps; n++) run.step()
  } catch (error) {
    breach = error instanceof Error ? error.message : String(error)
  }
  return { breach, figures: run.figures() }
}

class CoreRun {
  #random: Random
  #nodes: CoreNode[]
  #wires: Message[] = []
  #cuts = new Set<string>()
  /** How much time passes, and how much is lost: some runs are calm, in others leaders come and go. */
  #ticking: number
  #loss: number
  /** Appends of one entry, or of all. */
  #limits: { appendBytesMax: number; windowMessages: number }
  #now = 0
  #proposals = 0
  #leaders = new Map<number, NodeId>()
  /** What was applied anywhere, by index. */
  #applied: string[] = []
  #terms: number[] = []

  constructor(random: Random) {
    this.#random = random
    this.#ticking = random.pick([0.05, 0.1, 0.2])
    this.#loss = random.pick([0, 0.02, 0.1])
    const voters = [1n, 2n, 3n, 4n, 5n].slice(0, random.pick([3, 3, 4, 5]))
    this.#limits = random.pick([
      { appendBytesMax: 1, windowMessages: 1 },
      { appendBytesMax: 1, windowMessages: 256 },
      { appendBytesMax: 1 << 20, windowMessages: 256 },
    ])
    // As in a real cluster the first members are in a snapshot, and whoever comes later is told by one.
    const first = { index: 1, term: 1, membership: { voters, learners: [] } }
    const none = { index: 0, term: 0, membership: noMembers }
    this.#nodes = Array.from({ length: machines }, (_, at) => {
      const id = BigInt(at + 1)
      const disk: Recovered = voters.includes(id)
        ? { hardState: { term: 1, vote: 0n, commit: 1 }, snapshot: first, entries: [] }
        : { hardState: { term: 0, vote: 0n, commit: 0 }, snapshot: none, entries: [] }
      return { id, raft: this.#start(id, disk), up: true, disk, writes: [] }
    })
  }

  step(): void {
    const random = this.#random
    const node = random.pick(this.#nodes)
    const what = random.next()
    const waiting = this.#nodes.filter(({ up, writes }) => up && writes.length > 0)
    if (what < 0.01) this.#crashOrStart(node)
    else if (what < 0.02) this.#compact(node)
    else if (what < 0.03) this.#transfer()
    else if (what < 0.04) this.#partition()
    else if (what < 0.05) this.#cuts.clear()
    else if (what < 0.06) this.#change()
    else if (what < 0.1) this.#propose()
    else if (what < 0.3 && waiting.length > 0) this.#write(random.pick(waiting))
    else if (what < 1 - this.#ticking && this.#wires.length > 0) this.#deliver()
    else this.#event(node, { kind: 'tick', random: random.next(), now: ++this.#now })
  }

  figures(): { entries: number; terms: number; joint: number } {
    const joint = this.#applied.filter((text) => text.startsWith('config 40')).length
    return { entries: Math.max(0, this.#applied.length - 1), terms: this.#leaders.size, joint }
  }

  #start(id: NodeId, disk: Recovered): Raft {
    return createRaft({ id, electionTicks: 5, ...this.#limits }, disk)
  }

  #event(node: CoreNode, event: Parameters<typeof step>[1]): void {
    if (!node.up) return
    step(node.raft, event)
    this.#settle(node)
  }

  #deliver(): void {
    if (this.#wires.length === 0) return
    const at = this.#random.integer(0, this.#wires.length - 1)
    const message = this.#wires[at]!
    // Now and then it stays, to arrive again.
    if (!this.#random.chance(0.05)) {
      this.#wires[at] = this.#wires[this.#wires.length - 1]!
      this.#wires.pop()
    }
    if (this.#random.chance(this.#loss) || this.#cuts.has(`${message.from}>${message.to}`)) return
    const node = this.#nodes.find(({ id }) => id === message.to)!
    this.#event(node, { kind: 'message', message })
  }

  #write(node: CoreNode): void {
    const write = node.up ? node.writes.shift() : undefined
    if (write === undefined) return
    node.disk = written(node.disk, write)
    this.#send(write.messages)
    this.#event(node, { kind: 'persisted', seq: write.seq, lastIndex: write.lastIndex })
  }

  #transfer(): void {
    const leader = this.#leader()
    if (leader) this.#event(leader, { kind: 'transfer', to: this.#random.pick(this.#nodes).id })
  }

  #propose(): void {
    const leader = this.#leader()
    if (leader === undefined) return
    const data = new TextEncoder().encode(`p${++this.#proposals}`)
    propose(leader.raft, [{ kind: 'data', data }])
    this.#settle(leader)
  }

  #change(): void {
    const leader = this.#leader()
    if (leader === undefined || leader.raft.membership.joint !== undefined) return
    const changes = this.#random.chance(0.5) ? this.#someChanges() : this.#otherVoters(leader.raft.membership)
    if (changes.length === 0) return
    const entry: MembershipEntry =
      changes.length === 1 ? { kind: 'change', change: changes[0]! } : { kind: 'enter', changes }
    // What the roster's rules refuse: nobody left to decide.
    if (applyMembershipEntry(leader.raft.membership, entry).voters.length < 2) return
    propose(leader.raft, [{ kind: 'config', data: encodeMembershipEntry(entry) }])
    this.#settle(leader)
    if (this.#random.chance(0.3)) this.#partition()
  }

  #someChanges(): MembershipChange[] {
    const random = this.#random
    return Array.from({ length: random.integer(1, 3) }, () => ({
      op: random.pick(['add', 'add-learner', 'promote', 'remove', 'demote']),
      id: random.pick(this.#nodes).id,
      context: new Uint8Array(0),
    }))
  }

  /** Three voters of all machines, whoever they are now: old and new ones may have nobody in common. */
  #otherVoters({ voters }: Membership): MembershipChange[] {
    const next = this.#random.shuffle(this.#nodes.map(({ id }) => id)).slice(0, 3)
    const context = new Uint8Array(0)
    return [
      ...next.filter((id) => !voters.includes(id)).map((id) => ({ op: 'add' as const, id, context })),
      ...voters.filter((id) => !next.includes(id)).map((id) => ({ op: 'remove' as const, id, context })),
    ]
  }

  #crashOrStart(node: CoreNode): void {
    if (node.up) {
      node.up = false
      // The write under way may have got through, unheard.
      if (node.writes[0] !== undefined && this.#random.chance(0.5)) {
        node.disk = written(node.disk, node.writes[0])
      }
      node.writes = []
      if (this.#random.chance(0.3)) return
    }
    node.raft = this.#start(node.id, node.disk)
    node.up = true
    this.#settle(node)
  }

  #compact(node: CoreNode): void {
    const { raft } = node
    // The snapshot is of what is applied, and the log on the disk holds all of that.
    if (!node.up || raft.applied <= raft.snapshot.index || node.writes.some((write) => write.snapshot)) return
    const snapshot = { index: raft.applied, term: appliedTerm(raft), membership: raft.membership }
    const { hardState, entries } = node.disk
    node.disk = {
      hardState: { ...hardState, commit: Math.max(hardState.commit, snapshot.index) },
      snapshot,
      entries: entries.filter((entry) => entry.index > snapshot.index),
    }
    this.#event(node, { kind: 'compacted', snapshot, keepAfter: snapshot.index - this.#random.integer(0, 5) })
  }

  #partition(): void {
    const ids = this.#random.shuffle(this.#nodes.map(({ id }) => id))
    const at = this.#random.integer(1, ids.length - 1)
    this.#cuts.clear()
    for (const a of ids.slice(0, at)) {
      for (const b of ids.slice(at)) {
        this.#cuts.add(`${a}>${b}`)
        if (this.#random.chance(0.8)) this.#cuts.add(`${b}>${a}`)
      }
    }
  }

  #leader(): CoreNode | undefined {
    const leaders = this.#nodes.filter(({ up, raft }) => up && raft.role === 'leader')
    return leaders.length > 0 ? this.#random.pick(leaders) : undefined
  }

  #settle(node: CoreNode): void {
    for (let more = true; more; ) {
      const effects = takeEffects(node.raft)
      this.#send(effects.messages)
      if (effects.persist) node.writes.push(effects.persist)
      this.#check(node, effects)
      for (const to of effects.snapshots) this.#sendSnapshot(node, to)
      more = effects.more || effects.snapshots.length > 0
    }
  }

  #sendSnapshot({ id, raft }: CoreNode, to: NodeId): void {
    const ok = this.#random.chance(0.8)
    if (ok) this.#send([{ type: 'snapshot', from: id, to, term: raft.term, snapshot: raft.snapshot }])
    step(raft, { kind: 'snapshot-sent', to, ok })
  }

  #send(messages: readonly Message[]): void {
    this.#wires.push(...messages)
    while (this.#wires.length > wiresMax) {
      this.#wires.splice(this.#random.integer(0, this.#wires.length - 1), 1)
    }
  }

  /** One leader a term, which has all that was applied anywhere; the same entry at the same place everywhere. */
  #check({ id, raft }: CoreNode, effects: Effects): void {
    for (const entry of effects.committed) {
      const text = describe(entry)
      this.#applied[entry.index] ??= text
      this.#terms[entry.index] ??= entry.term
      if (this.#applied[entry.index] !== text) {
        throw new Error(`${id} applied ${text} at ${entry.index}, others ${this.#applied[entry.index]}`)
      }
    }
    if (raft.role !== 'leader' || this.#leaders.get(raft.term) === id) return
    if (this.#leaders.has(raft.term)) throw new Error(`${id} is a second leader of term ${raft.term}`)
    this.#leaders.set(raft.term, id)
    for (let index = raft.log.baseIndex + 1; index < this.#terms.length; index++) {
      const term = this.#terms[index]
      if (term === undefined || termAt(raft.log, index) === term) continue
      throw new Error(
        `${id} leads term ${raft.term} to ${lastIndex(raft.log)} without entry ${index} of term ${term}`,
      )
    }
  }
}

function describe({ kind, term, data }: Entry): string {
  return `${kind} ${Buffer.from(data).toString('hex')} of term ${term}`
}

/** What a write leaves on the disk: the marker of a snapshot starts over, entries cut off what they overlap. */
function written(disk: Recovered, write: Persist): Recovered {
  const base = write.snapshot ? { ...disk, snapshot: write.snapshot, entries: [] } : disk
  const first = write.entries[0]?.index ?? Number.POSITIVE_INFINITY
  const kept = base.entries.filter((entry) => entry.index < first)
  const fresh = write.entries.filter((entry) => entry.index > base.snapshot.index)
  return {
    hardState: write.hardState ?? base.hardState,
    snapshot: base.snapshot,
    entries: [...kept, ...fresh],
  }
}
