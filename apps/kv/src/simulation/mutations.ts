/**
 * Bugs put into the real sources, one at a time, to see that the checks of the simulation find them. A text that has to occur once
 * in the file is replaced, and seeds are run until one fails; a change of the source that it no longer fits fails the test of this list.
 */
export type Mutation = {
  name: string
  /** What is wrong with it. */
  what: string
  /** From the root of the repository. */
  file: string
  edits: readonly { find: string; replace: string }[]
  /** Looked for in random steps of the core alone, or of stores and their watchers. */
  run?: 'core' | 'watch'
}

const raft = (name: string): string => `libs/raft/src/${name}.ts`
const mvcc = (name: string): string => `libs/mvcc/src/${name}.ts`
const consensus = (name: string): string => `apps/kv/src/consensus/${name}.ts`

export const mutations: readonly Mutation[] = [
  {
    name: 'stale-read',
    what: 'a leader serves reads without asking a majority',
    file: raft('reads'),
    edits: [{ find: 'if (leaseHolds(raft, now)) {', replace: 'if (now !== -1) {' }],
  },
  {
    name: 'read-before-own-term',
    what: 'a new leader serves reads before an entry of its own term is committed',
    file: raft('reads'),
    edits: [{ find: 'if (!committedInTerm(raft)) {', replace: 'if (raft.committed < 0) {' }],
  },
  {
    name: 'acknowledge-before-sync',
    what: 'a follower acknowledges entries that are not durable yet',
    file: raft('replication'),
    edits: [{ find: 'const queue = raft.out.afterPersist\n', replace: 'const queue = raft.out.messages\n' }],
    run: 'core',
  },
  {
    name: 'count-before-sync',
    what: 'a leader counts its own copy before that is durable',
    file: raft('replication'),
    edits: [
      { find: 'id === raft.id ? raft.log.stable :', replace: 'id === raft.id ? lastIndex(raft.log) :' },
    ],
    run: 'core',
  },
  {
    name: 'vote-for-shorter-log',
    what: 'a member votes for a candidate whose log is behind its own',
    file: raft('election'),
    edits: [{ find: 'isUpToDate(raft.log, message)', replace: 'true' }],
  },
  {
    name: 'double-vote',
    what: 'a member votes twice in a term',
    file: raft('election'),
    edits: [
      {
        find: 'const free = raft.vote === message.from || (raft.vote === 0n && raft.leader === 0n)',
        replace: 'const free = true',
      },
    ],
  },
  {
    name: 'forget-vote',
    what: 'the vote is not written to the disk',
    file: raft('raft'),
    edits: [
      {
        find: '{ term: raft.term, vote: raft.vote, commit: raft.committed }',
        replace: '{ term: raft.term, vote: 0n, commit: raft.committed }',
      },
    ],
    run: 'core',
  },
  {
    name: 'apply-uncommitted',
    what: 'entries are applied when they are durable here, committed or not',
    file: raft('raft'),
    edits: [
      {
        find: 'const until = Math.min(raft.committed, raft.log.stable)',
        replace: 'const until = raft.log.stable',
      },
    ],
  },
  {
    name: 'truncate-matching',
    what: 'an append that arrives late cuts off what came after it',
    file: raft('replication'),
    edits: [
      {
        find: 'const fresh = message.entries.findIndex((entry) => !matches(raft.log, entry.index, entry.term))',
        replace: 'const fresh = message.entries.length - 1',
      },
    ],
  },
  {
    name: 'old-voters-ignored',
    what: 'in a joint configuration only the new voters decide',
    file: raft('membership'),
    edits: [
      {
        find: 'return joint === undefined ? [voters] : [voters, joint.outgoing]',
        replace: 'return joint === undefined ? [voters] : [voters]',
      },
    ],
    run: 'core',
  },
  {
    name: 'second-change-too-early',
    what: 'members change again before the first change is applied',
    file: raft('raft'),
    edits: [{ find: 'raft.pendingChange > raft.applied || ', replace: '' }],
    run: 'core',
  },
  {
    name: 'lease-in-ticks',
    what: 'the lease is measured in ticks, which stand still while the process does',
    file: raft('raft'),
    edits: [
      { find: 'raft.now = event.now\n      tick(', replace: 'raft.now += 10\n      tick(' },
      {
        find: 'raft.now = event.now\n      requestRead(raft, raft.id, event.context, event.now)',
        replace: 'requestRead(raft, raft.id, event.context, raft.now)',
      },
      {
        find: 'if (event.now !== undefined) raft.now = event.now\n      onMessage(raft, event.message, event.now)',
        replace: 'onMessage(raft, event.message, raft.now)',
      },
    ],
  },
  {
    name: 'retry-after-unknown',
    what: 'a proposal is sent again when the leader changes, though it may have been stored',
    file: consensus('proposals'),
    edits: [
      {
        find: "const fault = new Fault('STORE_LEADER_CHANGED', 'the leader changed before the proposal was stored')\n      proposal.settle(undefined, fault)",
        replace: 'this.#waiting.push(proposal)',
      },
    ],
  },
  {
    name: 'lost-watch-event',
    what: 'a watcher that was too slow goes on behind what it could not be told',
    file: mvcc('watch-hub'),
    edits: [
      {
        find: 'this.#fallBehind(watcher, Math.max(watcher.nextRevision, firstRevision))',
        replace: 'this.#fallBehind(watcher, Math.max(watcher.nextRevision, firstRevision + 1))',
      },
    ],
    run: 'watch',
  },
  {
    name: 'doubled-watch-event',
    what: 'a watcher that was too slow goes on from where it began',
    file: mvcc('watch-hub'),
    edits: [
      {
        find: 'this.#fallBehind(watcher, Math.max(watcher.nextRevision, firstRevision))',
        replace: 'this.#fallBehind(watcher, watcher.nextRevision)',
      },
    ],
    run: 'watch',
  },
  {
    name: 'watch-skips-snapshot',
    what: 'watchers are not told what a snapshot brought',
    file: mvcc('watch-hub'),
    edits: [
      {
        find: 'Math.max(watcher.nextRevision, this.#revision + 1)',
        replace: 'Math.max(watcher.nextRevision, this.#store.revision + 1)',
      },
    ],
    run: 'watch',
  },
  {
    name: 'watch-skips-compacted',
    what: 'a watcher goes on over a compaction that it should be told of',
    file: mvcc('watch-replayer'),
    edits: [
      {
        find: 'watcher.nextRevision < compactRevision || watcher.nextRevision < 0',
        replace: 'watcher.nextRevision < 0',
      },
    ],
    run: 'watch',
  },
]

/** The text with the bug in it. */
export function mutate({ name, file, edits }: Mutation, text: string): string {
  return edits.reduce((changed, { find, replace }) => {
    const parts = changed.split(find)
    if (parts.length !== 2) {
      throw new Error(`${name}: what it replaces occurs ${parts.length - 1} times in ${file}`)
    }
    return parts.join(replace)
  }, text)
}
