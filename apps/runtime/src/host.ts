import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createCgroup, enableControllers, isUnified, killCgroup, removeCgroup } from '@kiln/cgroup'
import { Fault } from '@kiln/service'
import type { PodGroups } from './container-plan.ts'

/** Why this machine cannot run pods at all; undefined when it can. */
export async function whyNoPods(input: {
  uid: number
  cgroupRoot: string
  initPath: string
}): Promise<Fault | undefined> {
  if (input.uid !== 0) {
    return new Fault(
      'RUNTIME_NEEDS_ROOT',
      'pods need root: namespaces, mounts and cgroups cannot be made here',
      {
        remedy: 'run pods on a machine or in a virtual machine of the cluster',
      },
    )
  }
  if (!(await isUnified(input.cgroupRoot))) {
    return new Fault(
      'RUNTIME_NEEDS_CGROUP_V2',
      `pods need cgroup v2 with cpu, memory and pids at ${input.cgroupRoot}, which this kernel does not offer`,
      { remedy: 'boot with systemd.unified_cgroup_hierarchy=1' },
    )
  }
  if (!existsSync(input.initPath))
    return new Fault('RUNTIME_NEEDS_INIT', `there is no kiln-init at ${input.initPath}`)
  return undefined
}

/**
 * Where a pod's processes live: outside the daemon's own group, so that stopping the daemon's unit cannot touch
 * them. `prefix` goes before kiln-init's command line.
 */
export type Placement = {
  groups: PodGroups
  prefix: string[]
  /** After the sandbox runs and before the first container. */
  prepare(): Promise<void>
  /** Kills what is left and removes the groups. */
  clear(): Promise<void>
}

const slice = 'kiln-pods.slice'

/** A scope of systemd for each start of a pod, or a plain group where PID 1 is another. */
export function placePod(input: {
  cgroupRoot: string
  unit: string
  systemd: boolean
  /** How long systemd waits for the pod at shutdown. */
  stopSeconds: number
}): Placement {
  const scope = `${input.unit}.scope`
  const path = input.systemd
    ? join(input.cgroupRoot, 'kiln.slice', slice, scope)
    : join(input.cgroupRoot, 'kiln-pods', input.unit)
  const groups: PodGroups = { infra: join(path, 'infra'), containers: path }
  const clear = async (): Promise<void> => {
    await killCgroup(path)
    // systemd removes a scope itself once it is empty; both may try.
    await removeCgroup(path)
  }
  if (!input.systemd) {
    return {
      groups,
      prefix: [],
      prepare: async () => {
        await enableControllers(input.cgroupRoot)
        await enableControllers(join(input.cgroupRoot, 'kiln-pods'))
        await enableControllers(path)
      },
      clear,
    }
  }
  return {
    groups,
    prefix: [
      '/usr/bin/systemd-run',
      '--scope',
      '--quiet',
      '--collect',
      `--slice=${slice}`,
      `--unit=${scope}`,
      '--property=Delegate=yes',
      // At shutdown the daemon goes first, so that it does not restart what is being stopped.
      '--property=Before=kiln-runtime.service',
      `--property=TimeoutStopSec=${input.stopSeconds}`,
      `--description=Kiln pod ${input.unit}`,
    ],
    prepare: () => enableControllers(path),
    clear,
  }
}

/** Makes the group that a pod's processes start in, where systemd does not. */
export async function preparePlace(placement: Placement): Promise<void> {
  if (placement.prefix.length === 0) await createCgroup(placement.groups.containers)
}

export const systemdRuns = (): boolean => existsSync('/run/systemd/system')
export const journalRuns = (): boolean => existsSync('/run/systemd/journal/socket')

export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

/** The most files that a process here may open; raising it takes a right that daemons in containers lack. */
export function openFilesMax(): number {
  const [, hard] = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? []
  return Number(hard ?? 1024)
}

/** Runs a tool to its end; its complaint becomes the cause. */
export function runTool(command: string, args: string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }
    const child = execFile(command, args, { timeout: 60_000, env }, (error, stdout, stderr) => {
      if (error)
        reject(
          new Fault('TOOL_FAILED', `${command} ${args.join(' ')}: ${stderr.trim().slice(0, 500)}`, {
            cause: error,
          }),
        )
      else resolve(stdout)
    })
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input)
  })
}
