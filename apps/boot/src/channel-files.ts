import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type ChannelChange, ChannelRecord } from '@kiln/schemas'
import { atomicWrite, Fault, type Log } from '@kiln/service'
import type { Problem } from './catalog.ts'

const channelsMax = 1024

/** `channels/GROUP.json`: which release the machines of a group should run. */
export class ChannelFiles {
  readonly problems: Problem[] = []
  readonly #folder: string
  readonly #log: Log
  readonly #channels = new Map<string, ChannelRecord>()
  #turn: Promise<unknown> = Promise.resolve()

  constructor(folder: string, log: Log) {
    this.#folder = folder
    this.#log = log
  }

  async load(): Promise<void> {
    await mkdir(this.#folder, { recursive: true })
    for (const name of (await readdir(this.#folder)).sort()) {
      if (!name.endsWith('.json')) continue
      try {
        const record = ChannelRecord.parse(JSON.parse(await readFile(join(this.#folder, name), 'utf8')))
        this.#channels.set(record.group, record)
      } catch (error) {
        this.problems.push({ file: `channels/${name}`, message: (error as Error).message.slice(0, 500) })
      }
    }
  }

  get(group: string): ChannelRecord | undefined {
    return this.#channels.get(group)
  }

  list(): ChannelRecord[] {
    return [...this.#channels.values()].sort((a, b) => (a.group < b.group ? -1 : 1))
  }

  /** Publishes a release to a group; a halted channel rolls again. */
  publish(group: string, wanted: ChannelChange): Promise<ChannelRecord> {
    return this.#change(group, () => ({
      version: wanted.version,
      allowDowngrade: wanted.allowDowngrade,
      state: 'rolling',
      reason: undefined,
      machine: undefined,
    }))
  }

  /**
   * Stops the rollout of a release (by default of the published one); a second halt keeps the first reason. Word of a release
   * that is no longer the published one comes too late to be about this rollout, and changes nothing.
   */
  halt(
    group: string,
    at: { version: string | undefined; reason: string; machine: string | undefined },
  ): Promise<ChannelRecord> {
    return this.#change(group, (before) => {
      if (!before) throw new Fault('CHANNEL_UNKNOWN', `group ${group} has no channel`)
      if (at.version !== undefined && at.version !== before.version)
        throw new Fault(
          'HALT_OUTDATED',
          `group ${group} should run ${before.version}, so a halt of ${at.version} stops nothing`,
        )
      if (before.state === 'halted') return before
      return { ...before, state: 'halted', reason: at.reason, machine: at.machine }
    })
  }

  #change(
    group: string,
    change: (
      before: ChannelRecord | undefined,
    ) => Pick<ChannelRecord, 'version' | 'allowDowngrade' | 'state' | 'reason' | 'machine'>,
  ): Promise<ChannelRecord> {
    const turn = this.#turn.then(async () => {
      const before = this.#channels.get(group)
      if (!before && this.#channels.size >= channelsMax) {
        throw new Fault('CHANNELS_FULL', `there are ${channelsMax} channels already`)
      }
      const after: ChannelRecord = {
        ...before,
        ...change(before),
        formatVersion: 1,
        group,
        changedAt: new Date().toISOString(),
      }
      await atomicWrite(join(this.#folder, `${group}.json`), `${JSON.stringify(after, undefined, 2)}\n`)
      this.#channels.set(group, after)
      this.#log.info(
        { group, version: after.version, state: after.state, reason: after.reason },
        'channel changed',
      )
      return after
    })
    this.#turn = turn.catch(() => undefined)
    return turn
  }
}
