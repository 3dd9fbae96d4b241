import { setTimeout as rest } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { keyBytes, loadKeys, type MemberMemory, startMeasuredMember } from './member-memory.ts'

/** V8 looks every 8 s whether there is something to give back. */
const restMsMax = 90_000

test('keys cost a whole member little memory, and it gives back what writing them needed', {
  timeout: 180_000,
}, async () => {
  const [keys, valueBytes] = [50_000, 64]
  const member = await startMeasuredMember()
  try {
    const empty = await member.memory()
    const besideKeyAndValue = ({ rssAnon }: MemberMemory): number =>
      (rssAnon - empty.rssAnon) / keys - keyBytes - valueBytes
    await loadKeys(member.process, { keys, valueBytes, keysPerRequest: 100 })
    const loaded = await member.memory()
    expect(loaded.arrayBuffers).toBeGreaterThan(keys * (keyBytes + valueBytes))
    expect(besideKeyAndValue(loaded)).toBeLessThan(2000)
    // So few keys weigh less than what an empty member needed to start.
    let atRest = loaded
    const deadline = performance.now() + restMsMax
    while (besideKeyAndValue(atRest) >= 150 && performance.now() < deadline) {
      await rest(1000)
      atRest = await member.memory()
    }
    expect(besideKeyAndValue(atRest)).toBeLessThan(150)
  } finally {
    await member.stop()
  }
})
