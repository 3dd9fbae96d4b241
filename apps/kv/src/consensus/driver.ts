import { type Event, isActive, type Persist, type Raft, step, takeEffects } from '@kiln/raft'
import { assert, Fault } from '@kiln/service'
import { clearRefill, recordBytesMax, type Wal } from '../wal/wal.ts'
import { Applier } from './applier.ts'
import { earlyElectionTicks, electsEarly } from './early-election.ts'
import { cannotGoOnFault, removedFault, stoppedFault, tooLargeFault, tooMany } from './faults.ts'
import { decodeFrame, encodeFrame, type Frame } from './frame.ts'
import { memberId } from './identity.ts'
import { Intake } from './intake.ts'
import { maintainTicks, readRetryTicks } from './limits.ts'
import { encodeRosterChanges, type Roster, type RosterChange } from './members.ts'
import { type OwnProposal, Proposals, SeenSequences } from './proposals.ts'
import { Reads } from './reads.ts'
import { Requests } from './requests.ts'
import { drawNumber, drawOrigin } from './run-numbers.ts'
import { SlowProposals } from './slow-proposals.ts'
import { type Received, SnapshotReceiver, SnapshotSender } from './snapshot-transfer.ts'
import type {
  Consensus,
  ConsensusLimits,
  ConsensusOptions,
  ConsensusStatus,
  LeaderChange,
  Member,
  MemberChange,
  MemberId,
} from './types.ts'

/**
 * A running member. Everything happens in turns: what comes in is stepped into the core at once, what has to be done about it is
 * done together when the turn of the event loop ends.
 */
export class Driver<Result> implements Consensus<Result> {
  #options: ConsensusOptions<Result>
  #limits: ConsensusLimits
  #raft: Raft
  #wal: Wal
  #origin: bigint
  #proposals: Proposals
  #seen = new SeenSequences()
  #reads: Reads
  #requests: Requests
  #intake: Intake
  #applier: Applier<Result>
  #sender: SnapshotSender
  #receiver: SnapshotReceiver
  /** Snapshots that arrived in this turn, by index. */
  #received = new Map<number, Received>()
  #announced: LeaderChange = { leader: 0n, term: 0, isLeader: false }
  #leaderListeners = new Set<(change: LeaderChange) => void>()
  #memberListeners = new Set<(members: readonly Member[]) => void>()
  #slow: SlowProposals
  #turnPlanned = false
  #stopped = false
  #cancelTick: () => void = () => undefined
  #ticks = 0
  #starting = true

  constructor(
    options: ConsensusOptions<Result>,
    limits: ConsensusLimits,
    raft: Raft,
    wal: Wal,
    roster: Roster,
  ) {
    this.#options = options
    this.#limits = limits
    this.#raft = raft
    this.#wal = wal
    this.#origin = drawOrigin(options.random)
    this.#proposals = new Proposals(drawNumber(options.random))
    this.#slow = new SlowProposals(options.slow)
    this.#reads = new Reads(drawNumber(options.random))
    this.#requests = new Requests(drawNumber(options.random))
    this.#intake = new Intake(raft, (to, sequence, code) => this.#refuse(to, sequence, code))
    this.#applier = this.#createApplier(roster)
    const ports = {
      disk: options.disk,
      clock: options.clock,
      log: options.log,
      chunkBytes: limits.snapshotChunkBytes,
      timeoutMs: limits.requestTimeoutMs,
      send: (to: MemberId, frame: Frame) => this.#send(to, frame),
    }
    this.#sender = new SnapshotSender(ports, drawNumber(options.random))
    this.#receiver = new SnapshotReceiver(ports, (received) => this.#onSnapshot(received))
  }

  #createApplier(roster: Roster): Applier<Result> {
    const { stateMachine, disk, log } = this.#options
    return new Applier<Result>(
      {
        stateMachine,
        disk,
        log,
        wal: this.#wal,
        raft: this.#raft,
        limits: this.#limits,
        proposals: this.#proposals,
        origin: this.#origin,
        now: () => this.#options.clock.now(),
        applied: (proposal, index, now) => this.#slow.applied(proposal, index, now),
        compacted: (snapshot, keepAfter) => this.#step({ kind: 'compacted', snapshot, keepAfter }),
        rosterChanged: () => this.#onRosterChange(),
        resume: () => this.#planTurn(),
        isStopped: () => this.#stopped,
        fail: (fault) => this.fail(fault),
      },
      roster,
    )
  }

  begin(): void {
    const { transport } = this.#options
    this.#setPeers()
    transport.start(
      (from, frame) => this.#onFrame(from, frame),
      (id) => this.#step({ kind: 'unreachable', id }),
    )
    this.#planTick()
    const { voters } = this.#raft.membership
    // Nobody else could object, so there is no reason to wait.
    if (voters.length === 1 && voters[0] === this.#raft.id) this.#step({ kind: 'campaign' })
    this.#planTurn()
  }

  // What callers ask for.

  propose(data: Uint8Array, call?: object): Promise<Result> {
    const largest = Math.min(this.#limits.proposalBytesMax, recordBytesMax(this.#limits.segmentBytes) - 256)
    if (data.length > largest) return Promise.reject(tooLargeFault(data.length, largest))
    return this.#proposeOwn('data', data, call) as Promise<Result>
  }

  async readIndex(): Promise<number> {
    return this.#read()
  }

  async confirmLeadership(): Promise<void> {
    const { term } = this.#raft
    if (!this.isLeader()) throw new Fault('STORE_NOT_LEADER', 'this member does not lead')
    await this.#read()
    if (!this.isLeader() || this.#raft.term !== term) {
      throw new Fault('STORE_NOT_LEADER', 'this member led, but does not any more')
    }
  }

  leadershipConfirmedAt(): number | undefined {
    return this.isLeader() ? this.#raft.confirmedAt : undefined
  }

  async requestLeader(body: Uint8Array): Promise<Uint8Array> {
    if (this.#stopped) throw stoppedFault()
    const leader = this.leader()
    if (leader === 0n) throw new Fault('STORE_NO_LEADER', 'there is no leader to ask')
    if (this.#requests.count() >= this.#limits.pendingMax) throw tooMany('requests to the leader')
    if (leader === this.#raft.id) return this.#answer(body, leader)
    return new Promise((resolve, reject) => {
      const deadline = this.#options.clock.now() + this.#limits.requestTimeoutMs
      const settle = (answer: Uint8Array, error: Fault | undefined): void =>
        error ? reject(error) : resolve(answer)
      this.#send(leader, { kind: 'request', id: this.#requests.add({ deadline, settle }), body })
    })
  }

  status(): ConsensusStatus {
    const raft = this.#raft
    return {
      id: raft.id,
      clusterId: this.#options.clusterId,
      role: raft.role,
      term: raft.term,
      leader: raft.leader,
      lastIndex: raft.log.baseIndex + raft.log.entries.length,
      committedIndex: raft.committed,
      appliedIndex: this.#applier.index,
      appliedTerm: this.#applier.term,
      snapshotIndex: raft.snapshot.index,
      walBytes: this.#wal.bytes(),
      progress: [...raft.progress].map(([id, { match }]) => ({
        id,
        matchIndex: match,
        active: isActive(raft, id),
      })),
      joint: this.#applier.roster.joint !== undefined,
      diskFull: this.#wal.isFull(),
    }
  }

  id(): MemberId {
    return this.#raft.id
  }

  clusterId(): bigint {
    return this.#options.clusterId
  }

  leader(): MemberId {
    return this.#raft.leader
  }

  isLeader(): boolean {
    return !this.#stopped && this.#raft.role === 'leader'
  }

  term(): number {
    return this.#raft.term
  }

  appliedIndex(): number {
    return this.#applier.index
  }

  members(): readonly Member[] {
    return this.#applier.roster.members
  }

  onLeaderChange(fn: (change: LeaderChange) => void): () => void {
    this.#leaderListeners.add(fn)
    return () => this.#leaderListeners.delete(fn)
  }

  onMembersChange(fn: (members: readonly Member[]) => void): () => void {
    this.#memberListeners.add(fn)
    return () => this.#memberListeners.delete(fn)
  }

  transferLeader(to: MemberId): Promise<void> {
    if (!this.isLeader()) return Promise.reject(new Fault('STORE_NOT_LEADER', 'this member does not lead'))
    if (!this.#raft.membership.voters.includes(to)) {
      return Promise.reject(new Fault('STORE_MEMBER_UNKNOWN', `${to.toString(16)} is no voting member`))
    }
    if (to === this.#raft.id) return Promise.resolve()
    return new Promise((resolve, reject) => {
      const { clock } = this.#options
      const unsubscribe = this.onLeaderChange((change) => {
        if (change.leader !== to) return
        finish(undefined)
      })
      const cancel = clock.after(this.#limits.requestTimeoutMs, () =>
        finish(new Fault('STORE_TIMEOUT', `${to.toString(16)} did not become leader in time`)),
      )
      const finish = (error: Fault | undefined): void => {
        unsubscribe()
        cancel()
        if (error) reject(error)
        else resolve()
      }
      this.#step({ kind: 'transfer', to })
    })
  }

  async addMember(member: { peerUrls: string[]; learner: boolean; name?: string }): Promise<Member> {
    const salt = Math.floor(this.#options.random() * 2 ** 32)
    const id = memberId(member.peerUrls, this.#options.clusterId.toString(16), salt)
    const op = member.learner ? 'add-learner' : 'add'
    await this.#change([{ op, id, peerUrls: member.peerUrls, name: member.name ?? '' }])
    const added = this.#applier.roster.members.find((candidate) => candidate.id === id)
    if (added === undefined) throw new Fault('STORE_MEMBER_UNKNOWN', 'the member was removed again at once')
    return added
  }

  removeMember(id: MemberId): Promise<void> {
    return this.#change([{ op: 'remove', id }])
  }

  promoteMember(id: MemberId): Promise<void> {
    return this.#change([{ op: 'promote', id }])
  }

  updateMember(id: MemberId, change: Parameters<Consensus<Result>['updateMember']>[1]): Promise<void> {
    return this.#change([{ op: 'update', id, ...change }])
  }

  changeMembers(changes: readonly MemberChange[]): Promise<void> {
    return this.#change(changes)
  }

  async compactLog(): Promise<void> {
    await this.#applier.save()
  }

  async stop(): Promise<void> {
    if (this.#stopped) return
    this.#end(stoppedFault())
    await this.#options.transport.stop()
    await this.#receiver.idle()
    await this.#applier.idle()
    await this.#wal.close()
  }

  /** Nothing may go on: what the disk holds is unknown, or this member is none any more. */
  fail(fault: Fault): void {
    if (this.#stopped) return
    this.#options.log.error({ error: fault }, 'this member cannot go on')
    this.#end(cannotGoOnFault(fault))
    this.#options.onFatal(fault)
  }

  #end(fault: Fault): void {
    this.#stopped = true
    this.#cancelTick()
    this.#sender.stop()
    this.#proposals.failAll(fault)
    this.#reads.failAll(fault)
    this.#requests.failAll(fault)
  }

  // Proposals and reads.

  #change(changes: readonly RosterChange[]): Promise<void> {
    const data = encodeRosterChanges(changes, 0n, 0)
    return this.#proposeOwn('config', data) as Promise<unknown> as Promise<void>
  }

  #proposeOwn(entry: 'data' | 'config', data: Uint8Array, call?: object): Promise<unknown> {
    if (this.#stopped) return Promise.reject(stoppedFault())
    if (this.#proposals.count() >= this.#limits.pendingMax) return Promise.reject(tooMany('proposals'))
    if (this.#raft.committed - this.#applier.index > this.#limits.unappliedEntriesMax) {
      return Promise.reject(tooMany('entries that are not applied yet'))
    }
    return new Promise((resolve, reject) => {
      const addedAt = this.#options.clock.now()
      this.#proposals.add({
        entry,
        data,
        addedAt,
        deadline: addedAt + this.#limits.requestTimeoutMs,
        sentAt: addedAt,
        call,
        sentTerm: 0,
        settle: (result, error) => (error ? reject(error) : resolve(result)),
      })
      this.#planTurn()
    })
  }

  #read(): Promise<number> {
    if (this.#stopped) return Promise.reject(stoppedFault())
    return new Promise((resolve, reject) => {
      const deadline = this.#options.clock.now() + this.#limits.requestTimeoutMs
      this.#reads.add({ deadline, settle: (index, error) => (error ? reject(error) : resolve(index)) })
      this.#planTurn()
    })
  }

  /** Gives what waits to the leader, if there is one. */
  #sendProposals(now: number): void {
    const raft = this.#raft
    if (!this.#proposals.hasWaiting() || raft.leader === 0n || raft.transferee !== 0n) return
    for (const proposal of this.#proposals.takeWaiting()) this.#sendProposal(proposal, now)
  }

  #sendProposal(proposal: OwnProposal, now: number): void {
    const raft = this.#raft
    const sequence = this.#proposals.markSent(proposal, raft.term, now)
    const { entry, data } = proposal
    if (raft.role === 'leader')
      this.#intake.add({ entry, origin: this.#origin, sequence, data, from: raft.id })
    else this.#send(raft.leader, { kind: 'propose', entry, origin: this.#origin, sequence, data })
  }

  #refuse(to: MemberId, sequence: number, code: string): void {
    if (to === this.#raft.id) this.#refused(sequence, code)
    else this.#send(to, { kind: 'refuse', sequence, code })
  }

  #refused(sequence: number, code: string): void {
    switch (code) {
      case 'not-leader':
      case 'transferring':
        this.#proposals.refused(sequence, undefined)
        return
      case 'too-many-uncommitted':
        this.#proposals.refused(sequence, tooMany('uncommitted bytes'))
        return
      case 'disk-full':
        this.#proposals.refused(sequence, new Fault('STORE_DISK_FULL', 'the disk of the leader is full'))
        return
      default:
        this.#proposals.refused(sequence, new Fault(code, 'the change of the members was refused'))
    }
  }

  // Events.

  #step(event: Event): void {
    if (this.#stopped) return
    step(this.#raft, event)
    this.#planTurn()
  }

  #planTick(): void {
    const { clock, tickMs, random } = this.#options
    this.#cancelTick = clock.after(tickMs, () => {
      this.#planTick()
      this.#ticks++
      const now = clock.now()
      this.#proposals.expire(now)
      this.#reads.expire(now)
      this.#requests.expire(now)
      if (this.#ticks % maintainTicks === 0) this.#wal.maintain()
      this.#step({ kind: 'tick', random: random(), now })
      const { leader, role } = this.#raft
      this.#starting &&= leader === 0n && this.#ticks < earlyElectionTicks
      if (this.#starting && electsEarly(role, this.#ticks, random())) this.#step({ kind: 'campaign' })
    })
  }

  #onFrame(from: MemberId, bytes: Uint8Array): void {
    if (this.#stopped) return
    let frame: Frame
    try {
      frame = decodeFrame(bytes)
    } catch (error) {
      this.#options.log.warn({ error, from: from.toString(16) }, 'a frame is malformed')
      return
    }
    if (this.#applier.roster.removed.includes(from)) {
      if (frame.kind !== 'removed') this.#send(from, { kind: 'removed' })
      return
    }
    switch (frame.kind) {
      case 'message':
        if (frame.message.from === from && frame.message.type !== 'snapshot') {
          this.#step({ kind: 'message', message: frame.message, now: this.#options.clock.now() })
        }
        return
      case 'propose':
        this.#onForwarded(from, frame)
        return
      case 'refuse':
        // Tried again with the next tick, when the leader may be known.
        this.#refused(frame.sequence, frame.code)
        return
      case 'request':
        this.#onRequest(from, frame.id, frame.body)
        return
      case 'response':
        this.#requests.answered(frame.id, frame.ok, frame.body)
        return
      case 'chunk':
        this.#receiver.onChunk(from, frame)
        return
      case 'chunk-taken':
        this.#sender.onTaken(from, frame)
        return
      case 'removed':
        this.fail(removedFault())
        return
    }
  }

  #onForwarded(from: MemberId, frame: Extract<Frame, { kind: 'propose' }>): void {
    if (!this.#seen.first(frame.origin, frame.sequence)) return
    if (this.isLeader()) {
      this.#intake.add({ ...frame, from })
      this.#planTurn()
    } else {
      this.#refuse(from, frame.sequence, 'not-leader')
    }
  }

  #onRequest(from: MemberId, id: number, body: Uint8Array): void {
    this.#answer(body, from).then(
      (answer) => this.#send(from, { kind: 'response', id, ok: true, body: answer }),
      (error) => {
        const code = error instanceof Fault ? error.code : 'STORE_REQUEST_FAILED'
        this.#send(from, { kind: 'response', id, ok: false, body: new TextEncoder().encode(code) })
      },
    )
  }

  async #answer(body: Uint8Array, from: MemberId): Promise<Uint8Array> {
    const { onRequest } = this.#options
    if (!this.isLeader() || onRequest === undefined) {
      throw new Fault('STORE_NOT_LEADER', 'this member does not lead')
    }
    return onRequest(body, from)
  }

  // The turn.

  #planTurn(): void {
    if (this.#turnPlanned || this.#stopped) return
    this.#turnPlanned = true
    const endOfTurn = this.#options.endOfTurn ?? setImmediate
    endOfTurn(() => {
      this.#turnPlanned = false
      if (!this.#stopped) this.#turn()
    })
  }

  #turn(): void {
    const { clock, tickMs } = this.#options
    const now = clock.now()
    this.#sendProposals(now)
    this.#intake.propose(this.#applier.roster, this.#wal.isFull())
    const context = this.#reads.begin(now, tickMs * readRetryTicks)
    if (context !== undefined) step(this.#raft, { kind: 'read', context, now })
    const effects = takeEffects(this.#raft)
    for (const message of effects.messages) this.#send(message.to, { kind: 'message', message })
    if (effects.persist) this.#persist(effects.persist)
    if (effects.install) {
      const received = this.#received.get(effects.install.index)
      assert(received !== undefined, 'the snapshot to install has arrived')
      this.#applier.install(received)
    }
    this.#received.clear()
    this.#slow.committed(effects.committed, now)
    this.#applier.apply(effects.committed)
    for (const read of effects.reads) this.#reads.answered(read.context, read.index)
    this.#reads.applied(this.#applier.index)
    for (const to of effects.snapshots) this.#sendSnapshot(to)
    if (effects.released) this.#clearRefill()
    this.#announceLeader()
    if (effects.more || this.#reads.hasWaiting()) this.#planTurn()
  }

  #persist(persist: Persist): void {
    const { seq, lastIndex, messages, snapshot, entries, hardState } = persist
    this.#wal.append({ origin: snapshot, entries, hardState }, () => {
      if (this.#stopped) return
      this.#slow.synced(lastIndex, this.#options.clock.now())
      for (const message of messages) this.#send(message.to, { kind: 'message', message })
      this.#step({ kind: 'persisted', seq, lastIndex })
    })
  }

  #onRosterChange(): void {
    this.#setPeers()
    for (const listener of this.#memberListeners) listener(this.#applier.roster.members)
    if (this.#applier.roster.removed.includes(this.#raft.id)) {
      // The others must still hear that it is committed.
      const { clock, tickMs } = this.#options
      clock.after(tickMs * 2, () => this.fail(removedFault()))
    }
  }

  #setPeers(): void {
    const known =
      this.#applier.roster.members.length > 0 ? this.#applier.roster.members : this.#options.members
    this.#options.transport.setPeers(known.filter((member) => member.id !== this.#raft.id))
    this.#options.transport.setRemoved?.(this.#applier.roster.removed)
  }

  #announceLeader(): void {
    const { leader, term, role } = this.#raft
    const isLeader = role === 'leader'
    const old = this.#announced
    if (old.leader === leader && old.term === term && old.isLeader === isLeader) return
    this.#announced = { leader, term, isLeader }
    if (!isLeader) this.#intake.handBack()
    this.#reads.askAgain()
    if (leader !== old.leader) {
      this.#options.log.info(
        { leader: leader.toString(16), term },
        leader === 0n ? 'leader lost' : 'leader found',
      )
    }
    for (const listener of this.#leaderListeners) listener(this.#announced)
    this.#planTurn()
  }

  // Snapshots.

  #sendSnapshot(to: MemberId): void {
    this.#sender
      .send(to, this.#raft.term)
      .catch((error) => {
        this.#options.log.warn({ error, to: to.toString(16) }, 'a snapshot could not be sent')
        return false
      })
      .then((ok) => this.#step({ kind: 'snapshot-sent', to, ok }))
      .catch((error) => this.fail(new Fault('STORE_FAILED', 'consensus failed', { cause: error })))
  }

  #onSnapshot(received: Received): void {
    this.#received.set(received.meta.index, received)
    const { from, term, meta } = received
    this.#step({
      kind: 'message',
      message: { type: 'snapshot', from, to: this.#raft.id, term, snapshot: meta },
    })
  }

  #clearRefill(): void {
    this.#options.log.info({}, 'the log is complete again, this member votes')
    clearRefill(this.#options.disk).catch((error) =>
      this.#options.log.warn({ error }, 'the mark of the damaged log was not removed'),
    )
  }

  #send(to: MemberId, frame: Frame): void {
    if (!this.#stopped) this.#options.transport.send(to, encodeFrame(frame))
  }
}
