import { setFlagsFromString } from 'node:v8'
import { type Clock, systemClock } from '@kiln/service'

const checkEveryMs = 2_000
/** Below this part of a core the member has time to tidy up. */
const quietShare = 0.03
/** Checks in a row that have to find it quiet. */
const quietChecks = 5

type Ports = {
  clock: Clock
  /** User and system time of this thread so far, in microseconds. */
  cpuMicros(): number
  /** Whether V8 prefers little memory to little work. */
  save(isSaving: boolean): void
}

/**
 * Has V8 give back what its heap grew to under load (at a million writes some 150 MiB: a young generation of 96 MiB, pages of the old
 * one, freed pages it keeps) once this member has little to do. V8 then collects in small steps, and in its usual way as soon as there is
 * load again, so that throughput pays nothing; a smaller young generation costs a fifth more CPU a Put. Answers how to end it.
 */
export function giveBackWhenQuiet(ports: Ports = processPorts()): () => void {
  let before = ports.cpuMicros()
  let quietFor = 0
  let isSaving = false
  let cancel = (): void => undefined
  const check = (): void => {
    const now = ports.cpuMicros()
    const isQuiet = now - before < checkEveryMs * 1000 * quietShare
    before = now
    quietFor = isQuiet ? quietFor + 1 : 0
    const wanted = quietFor >= quietChecks
    if (wanted !== isSaving) ports.save(wanted)
    isSaving = wanted
    cancel = ports.clock.after(checkEveryMs, check)
  }
  cancel = ports.clock.after(checkEveryMs, check)
  return () => cancel()
}

function processPorts(): Ports {
  return {
    clock: systemClock,
    cpuMicros: () => {
      const { user, system } = process.threadCpuUsage()
      return user + system
    },
    // V8 reads it at each of its own checks, some 8 s apart.
    save: (isSaving) => setFlagsFromString(isSaving ? '--memory-saver-mode' : '--no-memory-saver-mode'),
  }
}
