import type { Capabilities } from './plan.ts'

/** capabilities(7), in the kernel's numbering. */
export const capabilityNames = [
  'CHOWN',
  'DAC_OVERRIDE',
  'DAC_READ_SEARCH',
  'FOWNER',
  'FSETID',
  'KILL',
  'SETGID',
  'SETUID',
  'SETPCAP',
  'LINUX_IMMUTABLE',
  'NET_BIND_SERVICE',
  'NET_BROADCAST',
  'NET_ADMIN',
  'NET_RAW',
  'IPC_LOCK',
  'IPC_OWNER',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_CHROOT',
  'SYS_PTRACE',
  'SYS_PACCT',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_NICE',
  'SYS_RESOURCE',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'MKNOD',
  'LEASE',
  'AUDIT_WRITE',
  'AUDIT_CONTROL',
  'SETFCAP',
  'MAC_OVERRIDE',
  'MAC_ADMIN',
  'SYSLOG',
  'WAKE_ALARM',
  'BLOCK_SUSPEND',
  'AUDIT_READ',
  'PERFMON',
  'BPF',
  'CHECKPOINT_RESTORE',
] as const
export type Capability = (typeof capabilityNames)[number]

export function isCapability(name: string): name is Capability {
  return (capabilityNames as readonly string[]).includes(name)
}

export function capabilityMask(names: Iterable<Capability>): bigint {
  let mask = 0n
  for (const name of names) mask |= 1n << BigInt(capabilityNames.indexOf(name))
  return mask
}

/**
 * The five sets for a process. Root has its set permitted and effective; another user keeps it as bounding set only,
 * so that a file with capabilities may still use them, as container engines do.
 */
export function capabilitiesFor(names: Iterable<Capability>, uid: number): Capabilities {
  const mask = capabilityMask(names)
  const held = uid === 0 ? mask : 0n
  return { bounding: mask, effective: held, permitted: held, inheritable: 0n, ambient: 0n }
}
