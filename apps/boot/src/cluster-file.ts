import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { ClusterMember, Group, MachineRecord } from '@kiln/schemas'
import { atomicWrite, Fault, type Log } from '@kiln/service'
import { ClusterRecord, planCluster } from './initial-cluster.ts'

export const clusterWaiting = (plan: { expected: number; assigned: string[] }): Fault =>
  new Fault(
    'CLUSTER_WAITING',
    `the store waits for its members: ${plan.assigned.length} of ${plan.expected} assigned`,
  )

export const initialCluster = (members: ClusterMember[], token: string): ClusterRecord => ({
  formatVersion: 1,
  token,
  createdAt: new Date().toISOString(),
  members,
  joined: [],
})

/** `cluster.json`: the initial cluster, written once and never changed; members that joined later beside it. */
export class ClusterFile {
  readonly #path: string
  readonly #log: Log
  #record: ClusterRecord | undefined
  #turn: Promise<unknown> = Promise.resolve()

  constructor(path: string, log: Log) {
    this.#path = path
    this.#log = log
  }

  get record(): ClusterRecord | undefined {
    return this.#record
  }

  async load(): Promise<void> {
    try {
      this.#record = ClusterRecord.parse(JSON.parse(await readFile(this.#path, 'utf8')))
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return
      throw new Fault(
        'STATE_UNREADABLE',
        `${this.#path} is damaged; a new cluster is never made over an old one`,
        {
          cause,
        },
      )
    }
  }

  /** The cluster, written now if its members are complete; throws `CLUSTER_WAITING` while they are not. */
  async settle(
    groups: Iterable<Group>,
    machines: Iterable<MachineRecord>,
  ): Promise<ClusterRecord | undefined> {
    return this.#inTurn(async () => {
      if (this.#record) return this.#record
      const plan = planCluster(groups, machines)
      switch (plan.kind) {
        case 'no-store':
          return undefined
        case 'waiting':
          throw clusterWaiting(plan)
        case 'ready':
          return this.#write(initialCluster(plan.members, randomBytes(16).toString('hex')))
      }
    })
  }

  /**
   * Another cluster of this one member, whose disk is about to be empty and with it the store: its token is new, so that whoever was
   * added to the old one by hand takes no part.
   */
  async startAnew(member: ClusterMember): Promise<ClusterRecord> {
    return this.#inTurn(async () => {
      this.#log.warn(
        { member: member.name },
        'the only member of the store is installed again: the store begins empty',
      )
      return this.#write(initialCluster([member], randomBytes(16).toString('hex')))
    })
  }

  /** Remembers a member that was added to the running cluster. */
  async addJoined(member: ClusterMember): Promise<void> {
    await this.#inTurn(async () => {
      if (!this.#record) throw new Fault('CLUSTER_WAITING', 'there is no cluster to join yet')
      const joined = this.#record.joined.filter((other) => other.name !== member.name)
      return this.#write({ ...this.#record, joined: [...joined, member] })
    })
  }

  async #write(record: ClusterRecord): Promise<ClusterRecord> {
    await atomicWrite(this.#path, `${JSON.stringify(record, undefined, 2)}\n`)
    this.#record = record
    this.#log.info({ members: record.members, joined: record.joined }, 'cluster written')
    return record
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(run, run)
    this.#turn = turn.catch(() => undefined)
    return turn
  }
}
