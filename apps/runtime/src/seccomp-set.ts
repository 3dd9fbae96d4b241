import { constants } from 'node:os'
import { allSyscalls, defaultSeccomp, refusedByDefault, type Seccomp } from '@kiln/oci-runtime'
import type { SeccompSet } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** Sets by name, as rkt has them; `docker` and `rkt` are the profile `RuntimeDefault` here. */
const everything = '@appc.io/all'
const nothing = '@appc.io/empty'
const allowedByDefault = ['@docker/default-whitelist', '@rkt/default-whitelist']
const deniedByDefault = ['@docker/default-blacklist', '@rkt/default-blacklist']

/**
 * The profile of a set of system calls that an app keeps, or that it loses. What is refused answers `errno`. Kept calls stand on top of a set's; an
 * unknown call is an error, since it would be refused or let pass without a word. Pure.
 */
export function seccompOfSet(
  { mode, errno = 'EPERM', calls }: SeccompSet,
  capabilities: readonly string[],
): Seccomp {
  const sets = calls.filter((name) => name.startsWith('@'))
  const named = calls.filter((name) => !name.startsWith('@'))
  const known = new Set(allSyscalls())
  const unknown = named.find((name) => !known.has(name))
  const wrongSet = sets.find((set) => ![...setsOf[mode], everything, nothing].includes(set))
  if (unknown !== undefined || wrongSet !== undefined)
    throw new Fault('POD_SECCOMP_INVALID', `mode ${mode} cannot have ${unknown ?? wrongSet}`, {
      remedy: `name system calls, or ${[...setsOf[mode], everything, nothing].join(', ')}`,
    })
  const value = (constants.errno as Record<string, number>)[errno]
  if (value === undefined) throw new Fault('POD_SECCOMP_INVALID', `there is no error ${errno}`)
  const refuse = { action: 'SCMP_ACT_ERRNO', errnoRet: value }
  const architectures = process.arch === 'arm64' ? [] : ['SCMP_ARCH_X86']
  const all = sets.includes(everything)
  if (mode === 'remove') {
    const byDefault = sets.some((set) => deniedByDefault.includes(set)) ? refusedByDefault : []
    const names = all ? [...known] : [...new Set([...named, ...byDefault])]
    return {
      defaultAction: 'SCMP_ACT_ALLOW',
      architectures,
      syscalls: names.length === 0 ? [] : [{ names, ...refuse }],
    }
  }
  if (all) return { defaultAction: 'SCMP_ACT_ALLOW', architectures, syscalls: [] }
  const kept = named.length === 0 ? [] : [{ names: named, action: 'SCMP_ACT_ALLOW' }]
  if (!sets.some((set) => allowedByDefault.includes(set)))
    return { defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: value, architectures, syscalls: kept }
  const base = defaultSeccomp(new Set(capabilities))
  const others = (base.syscalls ?? []).map((rule) => ({
    ...rule,
    names: rule.names.filter((name) => !named.includes(name)),
  }))
  return { ...base, syscalls: [...kept, ...others.filter(({ names }) => names.length > 0)] }
}

const setsOf = { retain: allowedByDefault, remove: deniedByDefault }
