import * as z from 'zod'
import { parseWindow } from './window.ts'

const List = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => (typeof value === 'string' ? value.split(',') : value).filter((one) => one !== ''))

/** Settings of kiln-update. The paths are for simulated machines, which keep a machine in a folder. */
export const Settings = z.object({
  /** Facts of this machine. */
  machineFile: z.string().default('/etc/kiln/machine.json'),
  pkiDir: z.string().default('/etc/kiln/pki'),
  releaseKeysDir: z.string().default('/etc/kiln/release-keys'),
  stateDir: z.string().default('/var/lib/kiln/update'),
  /** Its time of change is when the image was built: no clock is believed that stands before it. */
  buildTimeFile: z.string().default('/usr/lib/clock-epoch'),
  runDir: z.string().default('/run/kiln'),
  /** The ESP, mounted. */
  espDir: z.string().default('/boot'),
  slotA: z.string().default('/dev/disk/by-partlabel/USR-A'),
  slotB: z.string().default('/dev/disk/by-partlabel/USR-B'),
  kernelArgumentsFile: z.string().default('/proc/cmdline'),
  bootIdFile: z.string().default('/proc/sys/kernel/random/boot_id'),
  uptimeFile: z.string().default('/proc/uptime'),
  installedFile: z.string().default('/var/lib/kiln/installed'),
  consoleFile: z.string().default('/dev/console'),
  rebootCommand: z.string().default('systemctl reboot'),
  /** Units that must be active for the health gate; a unit whose conditions fail is passed over. Empty for none. */
  healthUnits: List.default(['kiln-kv.service', 'kiln-runtime.service', 'systemd-networkd.service']),
  /** Socket of kiln-runtime that is asked for its pods; empty for none. */
  runtimeSocket: z.string().default('/run/kiln/runtime.sock'),
  pollSeconds: z.coerce.number().min(0.2).max(3600).default(5),
  /** How long a machine may hold the turn before it counts as stale. */
  turnMinutes: z.coerce.number().min(1).max(1440).default(30),
  /** How long pods get to end before the reboot of an update. */
  drainSeconds: z.coerce.number().int().min(0).max(600).default(60),
  /** `[Day ]HH:MM+MINUTES` in UTC, several separated by commas; none means always. */
  rebootWindows: List.default([]).refine((windows) => windows.every((one) => parseWindow(one)), {
    message: 'must be "[Day ]HH:MM+MINUTES", as "Sat 02:00+120"',
  }),
})
export type Settings = z.output<typeof Settings>
