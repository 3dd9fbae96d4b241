import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ProcessPlan } from '@kiln/linux'
import { compileSeccomp, defaultSeccomp, parseSeccomp } from '@kiln/oci-runtime'
import type { PodContainer, PodManifest, SeccompSet } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { seccompOfSet } from './seccomp-set.ts'

type Filter = NonNullable<ProcessPlan['seccomp']>

/** Of the default profile, by capabilities: a few at most. */
const compiled = new Map<string, Filter>()
const compiledMax = 32

/** The filter of a container's system calls: a set of its own, else its profile, else the pod's, else none, as in Kubernetes. */
export async function planSeccomp(
  pod: PodManifest,
  container: PodContainer,
  capabilities: readonly string[],
  profiles: string,
  set: SeccompSet | undefined,
): Promise<Filter | undefined> {
  if (set) {
    const { flags, filter } = compileSeccomp(seccompOfSet(set, capabilities), hostArchitecture)
    return { flags, filter }
  }
  const wanted = container.securityContext?.seccompProfile ?? pod.spec.securityContext?.seccompProfile
  switch (wanted?.type) {
    case 'Unconfined':
    case undefined:
      return undefined
    case 'Localhost':
      return await readProfile(join(profiles, wanted.localhostProfile ?? ''), container.name)
    case 'RuntimeDefault':
      return defaultFilter(capabilities)
  }
}

function defaultFilter(capabilities: readonly string[]): Filter {
  const key = [...capabilities].sort().join(' ')
  const known = compiled.get(key)
  if (known) return known
  const { flags, filter } = compileSeccomp(defaultSeccomp(new Set(capabilities)), hostArchitecture)
  if (compiled.size >= compiledMax) compiled.clear()
  compiled.set(key, { flags, filter })
  return { flags, filter }
}

async function readProfile(file: string, container: string): Promise<Filter> {
  try {
    const { flags, filter, listenerPath } = compileSeccomp(
      parseSeccomp(await readFile(file, 'utf8')),
      hostArchitecture,
    )
    if (listenerPath !== '') throw new Error('SCMP_ACT_NOTIFY needs a listener, and pods have none')
    return { flags, filter }
  } catch (cause) {
    throw new Fault('POD_SECCOMP_INVALID', `the profile of container ${container} cannot be used: ${file}`, {
      cause,
    })
  }
}

const hostArchitecture = process.arch === 'arm64' ? 'arm64' : 'x64'
