import { Fault } from '@kiln/service'

const lookIntervalMs = 500

export const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const aborted = (): void => {
      clearTimeout(timer)
      reject(new Fault('CANCELLED', 'the story was ended'))
    }
    if (signal?.aborted) return aborted()
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', aborted)
      resolve()
    }, ms)
    signal?.addEventListener('abort', aborted, { once: true })
  })

/**
 * Looks again and again until `look` answers something. A look that throws counts as not yet; the fault at the end
 * of the time says what the last look met.
 */
export async function until<T>(
  what: string,
  options: { timeoutMs: number; signal: AbortSignal; intervalMs?: number },
  look: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = performance.now() + options.timeoutMs
  for (;;) {
    let problem: unknown
    try {
      const found = await look()
      if (found !== undefined) return found
    } catch (error) {
      if (error instanceof Fault && error.code === 'CANCELLED') throw error
      problem = error
    }
    if (performance.now() > deadline) {
      const seconds = Math.round(options.timeoutMs / 1000)
      throw new Fault('STORY_LATE', `${what}: not within ${seconds} s`, { cause: problem })
    }
    await sleep(options.intervalMs ?? lookIntervalMs, options.signal)
  }
}

/** Throws `STORY_WRONG` unless the condition holds: what an operator would call wrong. */
export function expect(condition: unknown, sentence: string): asserts condition {
  if (!condition) throw new Fault('STORY_WRONG', sentence)
}
