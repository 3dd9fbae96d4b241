const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']

/** A span of the week in which reboots are allowed, in minutes from Sunday 00:00 UTC; may wrap over the week's end. */
export type Window = { startMinute: number; lengthMinutes: number }

const dayMinutes = 24 * 60
const weekMinutes = 7 * dayMinutes

/**
 * Reads `[Day ]HH:MM+MINUTES`, as `Sat 02:00+120` or `23:30+60` (every day). Returns undefined when it is not one.
 */
export function parseWindow(text: string): Window[] | undefined {
  const match = /^(?:(Sun|Mon|Tue|Wed|Thu|Fri|Sat) )?([01]\d|2[0-3]):([0-5]\d)\+(\d{1,4})$/.exec(text)
  if (!match) return undefined
  const [, day, hour, minute, length] = match
  const lengthMinutes = Number(length)
  if (lengthMinutes === 0 || lengthMinutes > weekMinutes) return undefined
  const starts = day ? [days.indexOf(day)] : days.map((_, index) => index)
  return starts.map((start) => ({
    startMinute: start * dayMinutes + Number(hour) * 60 + Number(minute),
    lengthMinutes,
  }))
}

/** Whether a reboot may start now; no windows at all means always. `nowMs` is milliseconds since 1970, UTC. */
export function windowOpen(windows: Window[], nowMs: number): boolean {
  if (windows.length === 0) return true
  const date = new Date(nowMs)
  const minute = date.getUTCDay() * dayMinutes + date.getUTCHours() * 60 + date.getUTCMinutes()
  return windows.some((one) => (minute - one.startMinute + weekMinutes) % weekMinutes < one.lengthMinutes)
}
