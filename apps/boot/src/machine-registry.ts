import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MachineRecord, normaliseMac } from '@kiln/schemas'
import { atomicWrite, Fault, type Log } from '@kiln/service'
import type { Problem } from './catalog.ts'
import type { Labels } from './labels.ts'
import { discovered, type MachineEvent, stepMachine } from './machine-state.ts'
import { rateLimit } from './rate-limit.ts'

/** Machines remembered; at the limit the discovered one not seen for longest makes room. */
export const machinesMax = 4096
const discoveriesPerSecond = 50
/** A machine that only asks again is written at most this often. */
const touchIntervalMs = 30_000

/** All machines known, in memory and as `machines/ID.json`. */
export class MachineRegistry {
  readonly problems: Problem[] = []
  readonly #folder: string
  readonly #log: Log
  readonly #byId = new Map<string, MachineRecord>()
  readonly #idByMac = new Map<string, string>()
  /** Writes run one after the other per machine; the value is the last one queued. */
  readonly #writes = new Map<string, Promise<void>>()
  readonly #writtenAt = new Map<string, number>()

  /** Strangers can make up MACs: only so many new ones a second are written down, the others ask again. */
  readonly #mayDiscover = rateLimit(discoveriesPerSecond, () => performance.now())

  constructor(folder: string, log: Log) {
    this.#folder = folder
    this.#log = log
  }

  /** Reads what is on disk; an unreadable record is left out and reported. */
  async load(): Promise<void> {
    await mkdir(this.#folder, { recursive: true })
    for (const name of (await readdir(this.#folder)).sort()) {
      if (!name.endsWith('.json')) continue
      try {
        await this.#admit(MachineRecord.parse(JSON.parse(await readFile(join(this.#folder, name), 'utf8'))))
      } catch (error) {
        this.problems.push({ file: `machines/${name}`, message: (error as Error).message.slice(0, 500) })
        this.#log.warn({ file: name, error }, 'machine record skipped')
      }
    }
  }

  /** A crash while a machine got its name leaves it twice; what it was before goes. */
  async #admit(record: MachineRecord): Promise<void> {
    const other = this.#byId.get(this.#idByMac.get(record.mac) ?? '')
    if (!other) return this.#remember(record)
    const [kept, stale] = record.state === 'discovered' ? [other, record] : [record, other]
    if (stale.state !== 'discovered') throw new Error(`MAC ${record.mac} is also that of ${other.id}`)
    this.#byId.delete(stale.id)
    this.#remember(kept)
    await rm(this.#path(stale.id), { force: true })
  }

  list(): MachineRecord[] {
    return [...this.#byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  values(): Iterable<MachineRecord> {
    return this.#byId.values()
  }

  /** By id, or by MAC in dashes: what a machine called itself before it was assigned. */
  get(id: string): MachineRecord | undefined {
    const mac = normaliseMac(id)
    return this.#byId.get(id) ?? this.#byId.get((mac && this.#idByMac.get(mac)) ?? '')
  }

  /** By MAC; by UUID only when the request has no MAC, because vendors repeat UUIDs. */
  find(labels: Labels): MachineRecord | undefined {
    const mac = labels.get('mac')
    if (mac) return this.#byId.get(this.#idByMac.get(mac) ?? '')
    const uuid = labels.get('uuid')
    if (!uuid || /^[0f-]*$/.test(uuid)) return undefined
    for (const record of this.#byId.values()) if (record.uuid === uuid) return record
    return undefined
  }

  /** The machine of a request, new or known; undefined when it does not say its MAC or there is no room. */
  async see(labels: Labels): Promise<MachineRecord | undefined> {
    const now = new Date().toISOString()
    const known = this.find(labels)
    if (known) {
      const uuid = labels.get('uuid')?.slice(0, 64) || undefined
      return this.apply(known.id, { kind: 'seen', at: now, uuid, serial: serialOf(labels) })
    }
    const mac = labels.get('mac')
    if (!mac || !this.#mayDiscover('all') || !(await this.#makeRoom())) return undefined
    if (this.find(labels)) return this.see(labels)
    const uuid = labels.get('uuid')?.slice(0, 64) ?? ''
    const record = {
      ...discovered({ id: mac.replaceAll(':', '-'), mac, uuid, now }),
      serial: serialOf(labels),
    }
    this.#remember(record)
    this.#log.info({ machine: record.id, uuid, serial: record.serial }, 'machine discovered')
    await this.#write(record)
    return record
  }

  /** Applies an event and waits until its result is on disk. */
  async apply(id: string, event: MachineEvent): Promise<MachineRecord> {
    const before = this.get(id)
    if (!before) throw new Fault('MACHINE_UNKNOWN', `no machine ${id}`)
    const after = stepMachine(before, event)
    if (after.id !== before.id && this.#byId.has(after.id)) {
      throw new Fault('NAME_TAKEN', `machine ${after.id} exists already`)
    }
    if (after.state !== before.state) {
      this.#log.info({ machine: after.id, from: before.state, to: after.state }, 'machine state changed')
    }
    this.#byId.delete(before.id)
    this.#remember(after)
    if (event.kind === 'seen' && !this.#touchIsDue(after.id)) return after
    await this.#write(after)
    if (after.id !== before.id) {
      await rm(this.#path(before.id), { force: true })
      this.#writes.delete(before.id)
      this.#writtenAt.delete(before.id)
    }
    return after
  }

  /** Waits for all writes that were begun. */
  async close(): Promise<void> {
    await Promise.all(this.#writes.values())
  }

  #remember(record: MachineRecord): void {
    this.#byId.set(record.id, record)
    this.#idByMac.set(record.mac, record.id)
  }

  async #makeRoom(): Promise<boolean> {
    if (this.#byId.size < machinesMax) return true
    let oldest: MachineRecord | undefined
    for (const record of this.#byId.values()) {
      if (record.state !== 'discovered') continue
      if (!oldest || record.lastSeenAt < oldest.lastSeenAt) oldest = record
    }
    if (!oldest) return false
    this.#byId.delete(oldest.id)
    this.#idByMac.delete(oldest.mac)
    this.#writes.delete(oldest.id)
    this.#writtenAt.delete(oldest.id)
    await rm(this.#path(oldest.id), { force: true })
    return true
  }

  #touchIsDue(id: string): boolean {
    return performance.now() - (this.#writtenAt.get(id) ?? -touchIntervalMs) >= touchIntervalMs
  }

  async #write(record: MachineRecord): Promise<void> {
    this.#writtenAt.set(record.id, performance.now())
    const write = (this.#writes.get(record.id) ?? Promise.resolve()).then(async () => {
      // A later event may already be in memory; writing the newest keeps the order and saves a write.
      const newest = this.#byId.get(record.id)
      if (newest) await atomicWrite(this.#path(record.id), `${JSON.stringify(newest, undefined, 2)}\n`)
    })
    this.#writes.set(
      record.id,
      write.catch(() => undefined),
    )
    try {
      await write
    } catch (cause) {
      throw new Fault('STATE_NOT_WRITTEN', `cannot write the record of machine ${record.id}`, { cause })
    }
  }

  #path(id: string): string {
    return join(this.#folder, `${id}.json`)
  }
}

const serialOf = (labels: Labels): string | undefined => labels.get('serial')?.slice(0, 256) || undefined
