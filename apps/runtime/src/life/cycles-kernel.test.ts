import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { newFolder, onHost, openRuntime, shellPod } from '../testing/host-runtime.ts'
import { inState, lifeStates } from './folders.ts'

/** Few in every test run; KILN_CYCLES=1000 is the long one. */
const cycles = Number(process.env['KILN_CYCLES'] ?? 15)
const warmUp = 5

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
    const before = { ...counts(), rss: process.memoryUsage.rss() }
    const began = performance.now()
    for (let index = 0; index < cycles; index++) await cycle()
    const each = (performance.now() - began) / cycles
    const after = { ...counts(), rss: process.memoryUsage.rss() }
    const grown = (after.rss - before.rss) / 2 ** 20
    console.log(`${cycles} pods of ${each.toFixed(0)} ms each; RSS ${grown.toFixed(1)} MiB more`)
    expect(after).toMatchObject({ mounts: before.mounts, children: before.children })
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors)
    for (const each of lifeStates) expect(await inState(state, each), each).toEqual([])
    expect(readdirSync(join(state, 'exits'))).toEqual([])
    expect(readdirSync(join(folder, 'run/pods'))).toEqual([])
    // A page of heap may come or go; a leak of 100 kB a pod does not hide in a thousand.
    if (cycles >= 500) expect(grown).toBeLessThan(64)
  },
  60_000 + cycles * 2_000,
)
