/** A line that a healthy machine never prints. */
export type Badness = { kind: string; line: string }

const checks: { kind: string; pattern: RegExp }[] = [
  { kind: 'kernel panic', pattern: /Kernel panic - not syncing/ },
  { kind: 'kernel oops', pattern: /\b(Oops:|BUG: |general protection fault|WARNING: CPU: \d)/ },
  {
    kind: 'lockup',
    pattern: /soft lockup|hard LOCKUP|blocked for more than \d+ seconds|rcu_\w+ detected .*stall/,
  },
  { kind: 'emergency shell', pattern: /emergency (mode|shell)|Entering emergency|You are in rescue mode/ },
  { kind: 'out of memory', pattern: /Out of memory: Killed|invoked oom-killer|oom-kill:/ },
  { kind: 'segmentation fault', pattern: /segfault at|traps: .* (trap|general protection)|core dumped/ },
  { kind: 'failed unit', pattern: /Failed to start |\.service: Failed with result|\[FAILED\]/ },
  { kind: 'ordering cycle', pattern: /ordering cycle (found|on)|Breaking ordering cycle/ },
  { kind: 'generator failure', pattern: /systemd.*generator .*failed/ },
  { kind: 'file system error', pattern: /(EXT4-fs|erofs).* error|Buffer I\/O error|I\/O error, dev/ },
  { kind: 'verity error', pattern: /device-mapper: verity: .*(corrupt|error)/ },
  { kind: 'agent failure', pattern: /MARK:[a-z-]+ .*status=failed/ },
]

/** Bad lines on a console. `allowed` names kinds that the story itself provokes. */
export function findBadness(lines: Iterable<string>, allowed: readonly string[] = []): Badness[] {
  const found: Badness[] = []
  for (const line of lines) {
    const check = checks.find(({ pattern }) => pattern.test(line))
    if (check && !allowed.includes(check.kind)) found.push({ kind: check.kind, line })
  }
  return found
}
