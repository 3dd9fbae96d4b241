import { expect, test } from 'vitest'
import { runSeed } from './run.ts'

test('clusters keep their promises under faults', async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const { breaches, figures } = await runSeed({ seed, ticks: 1500 })
    expect(breaches, `seed ${seed}`).toEqual([])
    expect(figures['acknowledged']).toBeGreaterThan(50)
  }
})

test('a run is the same each time', async () => {
  expect(await runSeed({ seed: 3, ticks: 1000 })).toEqual(await runSeed({ seed: 3, ticks: 1000 }))
})

test('with disks that do not sync the checks find the loss', async () => {
  let found = 0
  for (let seed = 1; seed <= 8; seed++) {
    const { breaches } = await runSeed({ seed, ticks: 3000, ignoreSync: true })
    if (breaches.length > 0) found++
  }
  expect(found).toBeGreaterThanOrEqual(6)
})
