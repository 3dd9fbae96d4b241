import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect } from 'vitest'
import { newFolder, onHost, openRuntime, shellPod } from '../testing/host-runtime.ts'
import { inState, lifeStates } from './folders.ts'

/** Few in every test run; KILN_CYCLES=1000 is the long one. */
const cycles = Number(process.env['KILN_CYCLES'] ?? 15)
const warmUp = 5

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** Bytes of what is still referenced. */
function heapBytes(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed
}

/** What a leak would show in, of this process and of the machine. */
function counts() {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8')
  return {
    mounts: readFileSync('/proc/self/mountinfo', 'utf8').split('\n').length,
    descriptors: readdirSync('/proc/self/fd').length,
    children: children.split(' ').filter(Boolean).length,
  }
}

onHost(
  'pods that come and go leave no mounts, descriptors, processes or folders, and no memory',
  async () => {
    const folder = newFolder()
    const { manager, life } = await openRuntime(folder)
    const state = join(folder, 'state')
    const signal = new AbortController().signal
    const cycle = async (): Promise<void> => {
      const uuid = await life.prepare(shellPod('exit 3', { restartPolicy: 'Never' }), signal)
      await life.runPrepared(uuid)
      for (let look = 0; life.find(uuid).state !== 'exited'; look++) {
        if (look > 3_000) throw new Error(`pod ${uuid} does not end`)
        manager.wake('hello')
        await sleep(10)
      }
      expect(life.find(uuid).exitCode).toBe(3)
      await life.collect({ graceSeconds: 0, expirePreparedSeconds: 0, markOnly: false })
    }
    for (let index = 0; index < warmUp; index++) await cycle()
    const before = { ...counts(), heap: heapBytes() }
    const began = performance.now()
    for (let index = 0; index < cycles; index++) await cycle()
    const each = (performance.now() - began) / cycles
    const after = { ...counts(), heap: heapBytes() }
    const grown = (after.heap - before.heap) / 2 ** 20
    console.log(`${cycles} pods of ${each.toFixed(0)} ms each; the heap has ${grown.toFixed(2)} MiB more`)
    expect(after).toMatchObject({ mounts: before.mounts, children: before.children })
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors)
    for (const each of lifeStates) expect(await inState(state, each), each).toEqual([])
    expect(readdirSync(join(state, 'exits'))).toEqual([])
    expect(readdirSync(join(folder, 'run/pods'))).toEqual([])
    // The log of events holds its last 2,000, those of 280 pods.
    if (cycles >= 500) expect(grown).toBeLessThan(4)
  },
  60_000 + cycles * 2_000,
)
