import { join } from 'node:path'
import { Cluster } from './cluster.ts'
import type { FixtureName } from './story.ts'

const nodesOf: Record<FixtureName, number> = { 'one-machine': 1, 'three-machines': 3 }

/** Memory of one machine of `kiln up` with what QEMU needs beside it. */
const machineMiB = 1_224

export const fixtureMemoryMiB = (name: FixtureName): number => nodesOf[name] * machineMiB

/** Clusters that stories share: booted when a story first asks, ended when none needs them any more. */
export class Fixtures {
  readonly #folder: string
  readonly #logPath: string
  readonly #keep: boolean
  readonly #running = new Map<FixtureName, Promise<Cluster>>()

  /** With `keep` clusters outlive the run, and one that runs already is used as it is: for work on a story. */
  constructor(at: { folder: string; logPath: string; keep: boolean }) {
    this.#folder = at.folder
    this.#logPath = at.logPath
    this.#keep = at.keep
  }

  state(name: FixtureName): string {
    return join(this.#folder, name)
  }

  isRunning(name: FixtureName): boolean {
    return this.#running.has(name)
  }

  /** Removes what a run that was killed left. */
  async clean(name: FixtureName): Promise<void> {
    if (!this.#keep) await Cluster.remove(this.state(name), this.#logPath)
  }

  /** The cluster and whether it was started for this call. */
  async get(name: FixtureName, signal: AbortSignal): Promise<{ cluster: Cluster; fresh: boolean }> {
    const running = this.#running.get(name)
    if (running) return { cluster: await running, fresh: false }
    const state = this.state(name)
    const starting = Cluster.start({ state, nodes: nodesOf[name], logPath: this.#logPath, signal })
    this.#running.set(name, starting)
    return { cluster: await starting, fresh: true }
  }

  async end(name: FixtureName): Promise<void> {
    const running = this.#running.get(name)
    if (!running) return
    this.#running.delete(name)
    await running.then(
      (cluster) => cluster.release(),
      () => undefined,
    )
    if (!this.#keep) await Cluster.remove(this.state(name), this.#logPath)
  }

  async endAll(): Promise<void> {
    for (const name of [...this.#running.keys()]) await this.end(name)
  }
}
