import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { encodePlan, type RunningRecord, type TerminalSize } from '@kiln/linux'
import type { StoredImage } from '@kiln/oci'
import { containersOf } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { containerGroup, type PodGroups, type PodPaths, runningFile } from './container-plan.ts'
import { type PodFacts, planContainerProcess } from './pod-process.ts'
import type { PodRecord } from './pod-record.ts'

/** What is known of a pod in which a program is to be run. */
export type ExecPlace = {
  record: PodRecord
  paths: PodPaths
  groups: PodGroups | undefined
  facts: PodFacts
  images: readonly StoredImage[]
  treeOf(image: StoredImage): string
}

/** A program to run in a container, the first one unless another is named. */
export type ProgramWanted = {
  container?: string | undefined
  args: readonly string[]
  /** It gets a terminal; `TERM` is `type`, or else what the container has, or xterm. */
  terminal?: (TerminalSize & { type?: string | undefined }) | undefined
}

/**
 * Writes a plan that enters a running container with the rights of its own process; answers the file, which is the caller's to remove.
 */
export async function planExec(place: ExecPlace, wanted: ProgramWanted): Promise<string> {
  const { record, paths, groups, facts } = place
  const { manifest } = record
  const name = wanted.container ?? manifest.spec.containers[0]!.name
  const container = containersOf(manifest).find((each) => each.name === name)
  if (!container)
    throw new Fault('POD_NOT_FOUND', `pod ${manifest.metadata.name} has no container ${wanted.container}`)
  const entry = record.containers[name]
  const image = place.images.find(({ chainId }) => chainId === entry?.chainId)
  if (entry?.state.kind !== 'running' || !image)
    throw new Fault('POD_NOT_RUNNING', `container ${name} of pod ${manifest.metadata.name} does not run`)
  const running = JSON.parse(await readFile(runningFile(paths, name), 'utf8')) as RunningRecord
  const own = await planContainerProcess(manifest, container, image.config, place.treeOf(image), facts)
  const { terminal } = wanted
  const type = terminal?.type ?? own.env['TERM'] ?? 'xterm'
  const plan = encodePlan({
    kind: 'exec',
    id: `${manifest.metadata.name}/${name}`,
    join: {
      pid: running.pid,
      startTime: running.startTime,
      namespaces: ['mount', 'pid', 'network', 'ipc', 'uts', ...(groups ? (['cgroup'] as const) : [])],
    },
    ...(groups ? { cgroup: containerGroup(groups, name) } : {}),
    ...(terminal ? { terminal } : {}),
    process: {
      ...own,
      args: [...wanted.args],
      ...(terminal ? { env: { ...own.env, TERM: type } } : {}),
    },
  })
  const planFile = join(paths.run, `exec-${randomUUID()}.plan`)
  await writeFile(planFile, plan, { mode: 0o600 })
  return planFile
}

/** Runs such a plan without any input or output, and removes it. Fails unless the program ends with 0 in time. */
export async function runExec(initPath: string, planFile: string, timeoutMs: number): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      // The program in the container goes with its parent.
      const child = spawn(initPath, ['exec', planFile], {
        stdio: 'ignore',
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
      })
      child.once('error', (cause) => reject(new Fault('TOOL_FAILED', `cannot run ${initPath}`, { cause })))
      child.once('exit', (code, signal) => {
        if (code === 0) resolve()
        else if (signal === 'SIGKILL')
          reject(new Fault('PROBE_FAILED', `the program did not end within ${timeoutMs} ms`))
        else reject(new Fault('PROBE_FAILED', `the program ended with ${code ?? signal}`))
      })
    })
  } finally {
    await rm(planFile, { force: true })
  }
}
