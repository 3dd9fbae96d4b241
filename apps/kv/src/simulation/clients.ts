import { Fault } from '@kiln/service'
import type { Call, History, Random } from '@kiln/simulation'
import type { Cluster, SimulatedNode } from './cluster.ts'
import { type Command, type CommandResult, encodeCommand } from './register-machine.ts'

/** Faults that promise that nothing happened; the checker holds the store to it. */
const certain = new Set([
  'STORE_NO_LEADER',
  'STORE_TOO_MANY_REQUESTS',
  'STORE_DISK_FULL',
  'STORE_REQUEST_TOO_LARGE',
])

type Client = { busyWith: { node: SimulatedNode; life: number } | undefined; idleUntil: number }

/** Clients that read and write a few keys through whatever member they meet. */
export class Clients {
  readonly counters = { acknowledged: 0, unknown: 0, refused: 0 }
  #cluster: Cluster
  #history: History
  #random: Random
  #clients: Client[]
  #keys: number
  #ids = 0
  #lastSeen = new Map<string, string | undefined>()

  constructor(cluster: Cluster, history: History, random: Random, size: { clients: number; keys: number }) {
    this.#cluster = cluster
    this.#history = history
    this.#random = random
    this.#keys = size.keys
    this.#clients = Array.from({ length: size.clients }, () => ({ busyWith: undefined, idleUntil: 0 }))
  }

  /** Lets every idle client do something now and then. */
  act(tick: number): void {
    this.#clients.forEach((client, number) => {
      const { busyWith } = client
      // Its server is gone: it will never hear the answer.
      if (busyWith && busyWith.node.life !== busyWith.life) client.busyWith = undefined
      if (client.busyWith || tick < client.idleUntil) return
      const node = this.#random.pick(this.#cluster.nodes)
      client.idleUntil = tick + this.#random.integer(1, 25)
      if (node.running) this.#begin(client, number, node)
    })
  }

  #begin(client: Client, number: number, node: SimulatedNode): void {
    const { consensus, machine } = node.running!
    const random = this.#random
    const key = `k${random.integer(1, this.#keys)}`
    const id = ++this.#ids
    const busy = { node, life: node.life }
    client.busyWith = busy
    const free = (): void => {
      if (client.busyWith === busy) client.busyWith = undefined
    }
    const kind = random.next()
    if (kind < 0.4) {
      const call = this.#history.begin(number, key, { kind: 'get' })
      consensus.readIndex().then(
        () => {
          const found = machine.get(key)
          this.#lastSeen.set(key, found)
          this.#end(call, { found, written: false })
          free()
        },
        (error) => {
          this.#failed(call, error)
          free()
        },
      )
      return
    }
    const value = `v${id}`
    const expected = random.chance(0.7) ? this.#lastSeen.get(key) : 'nothing'
    const command: Command =
      kind < 0.75
        ? { kind: 'put', id, key, value }
        : kind < 0.93
          ? { kind: 'cas', id, key, expected, value }
          : { kind: 'delete', id, key }
    const call = this.#history.begin(
      number,
      key,
      command.kind === 'delete'
        ? { kind: 'delete' }
        : command.kind === 'put'
          ? { kind: 'put', value }
          : { kind: 'cas', expected, value },
    )
    consensus.propose(encodeCommand(command)).then(
      (result) => {
        this.#lastSeen.set(key, result.found)
        this.#end(call, result)
        free()
      },
      (error) => {
        this.#failed(call, error)
        free()
      },
    )
  }

  #end(call: Call, result: CommandResult): void {
    this.counters.acknowledged++
    this.#history.end(call, result)
  }

  #failed(call: Call, error: unknown): void {
    if (!(error instanceof Fault)) throw error
    if (certain.has(error.code)) {
      this.counters.refused++
      this.#history.drop(call)
    } else {
      this.counters.unknown++
    }
  }
}
