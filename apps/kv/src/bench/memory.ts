import { setTimeout as rest } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { report } from './gap-meter.ts'
import { keyBytes, loadKeys, type MemberMemory, startMeasuredMember } from './member-memory.ts'

/**
 * What many keys cost a whole member in memory, right after they were written and at rest, and what that memory is: a real process,
 * loaded through its port. `node apps/kv/src/bench/memory.ts [--keys N] [--value-bytes N] [--keys-per-request N] [--flag=F ...]`.
 */
const { values } = parseArgs({
  options: {
    keys: { type: 'string', default: '1000000' },
    'value-bytes': { type: 'string', default: '64' },
    'keys-per-request': { type: 'string', default: '1' },
    /** Of the member. */
    flag: { type: 'string', multiple: true, default: [] },
  },
})
const keys = Number(values.keys)
const valueBytes = Number(values['value-bytes'])
const restsMs = [15_000, 45_000]

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1)

function reportMemory(name: string, memory: MemberMemory, empty: MemberMemory): void {
  const { rssAnon, heapTotal, heapUsed, external, arrayBuffers, spaces, gap } = memory
  report(name, {
    besideKeyAndValue: (rssAnon - empty.rssAnon) / keys - keyBytes - valueBytes,
    rssAnonMiB: mib(rssAnon),
    heapMiB: mib(heapTotal),
    heapUsedMiB: mib(heapUsed),
    buffersMiB: mib(arrayBuffers),
    externalMiB: mib(external),
    // What is neither V8's heap nor in use for buffers: freed and kept by malloc, stacks, code of libraries.
    restMiB: mib(rssAnon - heapTotal - external),
    gapMs: gap.wallMs,
    gapCpuMs: gap.cpuMs,
  })
  const large = Object.entries(spaces).filter(([, bytes]) => bytes > 2 ** 20)
  report('', Object.fromEntries(large.map(([space, bytes]) => [space, mib(bytes)])))
}

const member = await startMeasuredMember(values.flag)
try {
  await rest(restsMs[0]!)
  const empty = await member.memory()
  reportMemory('empty', empty, empty)
  const start = performance.now()
  await loadKeys(member.process, { keys, valueBytes, keysPerRequest: Number(values['keys-per-request']) })
  report('load', { s: (performance.now() - start) / 1000 })
  reportMemory('right after', await member.memory(), empty)
  let rested = 0
  for (const ms of restsMs) {
    await rest(ms)
    rested += ms
    reportMemory(`after ${rested / 1000} s`, await member.memory(), empty)
  }
  report('restart', { s: (await member.restart()) / 1000 })
  await rest(restsMs[0]!)
  reportMemory('after the restart', await member.memory(), empty)
} finally {
  await member.stop()
}
