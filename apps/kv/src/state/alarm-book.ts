import type { AlarmKind } from './command.ts'

export type Alarm = { member: bigint; alarm: AlarmKind }

/** Alarms that are on, as all members agree. */
export class AlarmBook {
  #alarms: Alarm[] = []

  /** True if it was not on yet. */
  raise(alarm: Alarm): boolean {
    if (this.#alarms.some((each) => isSame(each, alarm))) return false
    this.#alarms.push(alarm)
    return true
  }

  /** Switches off the alarm of one member, or of all with member 0; answers those that were on. */
  clear({ member, alarm }: Alarm): Alarm[] {
    const cleared = this.#alarms.filter(
      (each) => each.alarm === alarm && (member === 0n || each.member === member),
    )
    this.#alarms = this.#alarms.filter((each) => !cleared.includes(each))
    return cleared
  }

  list(kind?: AlarmKind): readonly Alarm[] {
    return kind ? this.#alarms.filter(({ alarm }) => alarm === kind) : this.#alarms
  }

  has(kind: AlarmKind): boolean {
    return this.#alarms.some(({ alarm }) => alarm === kind)
  }

  replace(alarms: Alarm[]): void {
    this.#alarms = alarms
  }
}

const isSame = (a: Alarm, b: Alarm): boolean => a.member === b.member && a.alarm === b.alarm
