import { expect, test } from 'vitest'
import { giveBackWhenQuiet } from './spare-memory.ts'
import { manualClock } from './testing/manual-clock.ts'

test('memory is given back while a member is quiet, and no sooner', async () => {
  const clock = manualClock()
  const said: boolean[] = []
  let cpuMicros = 0
  const end = giveBackWhenQuiet({
    clock,
    cpuMicros: () => cpuMicros,
    save: (isSaving) => said.push(isSaving),
  })
  const pass = async (busyMs: number): Promise<void> => {
    cpuMicros += busyMs * 1000
    await clock.advance(2_000)
  }
  const passQuietly = async (checks: number): Promise<void> => {
    for (let at = 0; at < checks; at++) await pass(10)
  }
  await pass(1_500)
  await passQuietly(4)
  expect(said).toEqual([])
  await passQuietly(3)
  expect(said).toEqual([true])
  await pass(100)
  expect(said).toEqual([true, false])
  await passQuietly(4)
  await pass(100)
  await passQuietly(4)
  expect(said).toEqual([true, false])
  await passQuietly(1)
  expect(said).toEqual([true, false, true])
  end()
  await pass(900)
  expect(said).toEqual([true, false, true])
})
