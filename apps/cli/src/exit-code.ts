import { Fault } from '@kiln/service'

/** Exit codes of commands without an anchor (DESIGN, section 4). */
const codes: Record<string, number> = {
  USAGE: 2,
  CLUSTER_UNKNOWN: 3,
  MACHINE_UNKNOWN: 3,
  GROUP_UNKNOWN: 3,
  CHANNEL_UNKNOWN: 3,
  RELEASE_UNKNOWN: 3,
  POD_UNKNOWN: 3,
  HOST_PACKAGES: 4,
  MEMORY_SHORT: 4,
  DISK_SHORT: 4,
  PORT_TAKEN: 4,
  NO_REPOSITORY: 4,
  CLUSTER_RUNNING: 4,
  CLUSTER_STOPPED: 4,
  STATE_LOCKED: 4,
  MACHINE_OFF: 4,
  TURN_FREE: 4,
  ROLLOUT_NOT_HALTED: 4,
  MACHINE_LATE: 5,
  UPDATE_LATE: 5,
  QMP_TIMEOUT: 5,
  LAB_TIMEOUT: 5,
  STORE_TIMEOUT: 5,
  LAB_UNREACHABLE: 6,
  BOOT_UNREACHABLE: 6,
  STORE_UNREACHABLE: 6,
  CONFIG_INVALID: 7,
  SETTINGS_INVALID: 7,
  STATE_INVALID: 7,
  RELEASE_MANIFEST_INVALID: 7,
  CANCELLED: 130,
}

export function exitCodeOf(error: unknown): number {
  return error instanceof Fault ? (codes[error.code] ?? 1) : 1
}
