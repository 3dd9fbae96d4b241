import type { Seccomp } from './config.ts'
import { allSyscalls } from './syscalls.ts'

const EPERM = 1
const ENOSYS = 38
/** `CLONE_NEW*` in the flags of clone(2); the one of time is only for clone3. */
const newNamespaces = 0x7e020000
const AF_VSOCK = 40
const personalities = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff]

/** What changes or shows the whole machine, and what attacks on kernels like to begin with. */
export const refusedByDefault = `
  add_key bpf create_module fanotify_init finit_module fsconfig fsmount fsopen fspick get_kernel_syms init_module delete_module
  io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl listmount lookup_dcookie
  lsm_set_self_attr migrate_pages mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree open_tree_attr
  perf_event_open pidfd_getfd pivot_root process_madvise query_module quotactl quotactl_fd reboot request_key setdomainname
  sethostname setns settimeofday clock_settime clock_settime64 stime statmount swapoff swapon sysfs syslog _sysctl umount umount2
  unshare uselib userfaultfd ustat vm86 vm86old`
  .trim()
  .split(/\s+/)

/** Refused unless the container has the capability without which they would be in vain. */
const byCapability: Readonly<Record<string, string[]>> = {
  SYS_CHROOT: ['chroot'],
  SYS_NICE: ['get_mempolicy', 'mbind', 'set_mempolicy', 'set_mempolicy_home_node'],
  SYS_PACCT: ['acct'],
  SYS_TTY_CONFIG: ['vhangup'],
}

/** Allowed for some arguments only: they have rules of their own. */
const particular = ['clone', 'clone3', 'personality', 'socket']

/**
 * The profile `RuntimeDefault`: every call that is known here may be made but those that are refused; a call of a newer kernel is
 * answered as by an older one. `capabilities` are those of the container, without `CAP_`.
 */
export function defaultSeccomp(capabilities: ReadonlySet<string>): Seccomp {
  const missing = Object.entries(byCapability).flatMap(([name, calls]) =>
    capabilities.has(name) ? [] : calls,
  )
  const not = new Set([...refusedByDefault, ...missing, ...particular])
  const allow = 'SCMP_ACT_ALLOW'
  const only = (name: string, op: string, value: number, valueTwo?: number) => ({
    names: [name],
    action: allow,
    args: [{ index: 0, op, value, ...(valueTwo === undefined ? {} : { valueTwo }) }],
  })
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: ENOSYS,
    architectures: process.arch === 'arm64' ? [] : ['SCMP_ARCH_X86'],
    flags: [],
    syscalls: [
      { names: allSyscalls().filter((name) => !not.has(name)), action: allow, args: [] },
      only('clone', 'SCMP_CMP_MASKED_EQ', newNamespaces, 0),
      // The kernel takes an int: bits above it must not hide the family.
      {
        names: ['socket'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: EPERM,
        args: [{ index: 0, op: 'SCMP_CMP_MASKED_EQ', value: 0xffffffff, valueTwo: AF_VSOCK }],
      },
      { names: ['socket'], action: allow, args: [] },
      ...personalities.map((value) => only('personality', 'SCMP_CMP_EQ', value)),
      // Its flags are behind a pointer; C libraries then fall back to clone.
      { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS, args: [] },
      {
        names: [...refusedByDefault, ...missing, 'clone', 'personality'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: EPERM,
        args: [],
      },
    ],
  }
}
