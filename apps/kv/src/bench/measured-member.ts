import { getHeapSpaceStatistics } from 'node:v8'
import { type Gap, watchGaps } from './gap-meter.ts'

/** What the memory of a member is made of, in bytes. */
export type MemoryParts = {
  heapUsed: number
  heapTotal: number
  /** Held by V8 for objects outside of its heap; `arrayBuffers`, the memory of typed arrays, is a part of it. */
  external: number
  arrayBuffers: number
  /** What V8 holds for each space of its heap. */
  spaces: Record<string, number>
  /** Longest pause of the loop since the parts before. */
  gap: Gap
}

const gapEveryMs = 5

/** What a line with `MemoryParts` begins with. */
export const memoryMark = 'memory-parts '

function memoryParts(gap: Gap): MemoryParts {
  const { heapUsed, heapTotal, external, arrayBuffers } = process.memoryUsage()
  const spaces = Object.fromEntries(
    getHeapSpaceStatistics().map((space) => [space.space_name, space.physical_space_size]),
  )
  return { heapUsed, heapTotal, external, arrayBuffers, spaces, gap }
}

/**
 * A member as its users run it, which says on stderr what its memory is made of whenever it gets SIGUSR2. What loads it is
 * another process, so that nothing of a generator is counted.
 */
if (import.meta.main) {
  const gaps = watchGaps(gapEveryMs)
  process.on('SIGUSR2', () =>
    process.stderr.write(`${memoryMark}${JSON.stringify(memoryParts(gaps.take()))}\n`),
  )
  await import('../main.ts')
}
