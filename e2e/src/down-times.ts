import { impliedStage, parseMark } from '@kiln/vm'

/** Time between the first sign of a machine's reboot and `ready`, on the observer's clock. */
export type DownTime = { machine: string; fromMs: number; toMs: number | undefined }

/** Watches consoles for reboots. A machine counts as down from its firmware's first line until it is ready. */
export class DownTimes {
  readonly times: DownTime[] = []

  line(machine: string, line: string, nowMs: number): void {
    const current = this.times.find((time) => time.machine === machine && time.toMs === undefined)
    const mark = parseMark(line)?.stage
    if (mark === 'ready') {
      if (current) current.toMs = nowMs
      return
    }
    if (!current && (mark === 'kernel' || impliedStage(line) !== undefined)) {
      this.times.push({ machine, fromMs: nowMs, toMs: undefined })
    }
  }
}

/** Pairs of machines that were down at the same time. */
export function overlaps(times: readonly DownTime[]): [DownTime, DownTime][] {
  const end = (time: DownTime): number => time.toMs ?? Number.POSITIVE_INFINITY
  return times.flatMap((one, index) =>
    times
      .slice(index + 1)
      .filter((two) => one.machine !== two.machine && one.fromMs < end(two) && two.fromMs < end(one))
      .map((two): [DownTime, DownTime] => [one, two]),
  )
}
