import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { watchCertificate } from './certificate-watch.ts'

/** A clock whose timer the test fires, and waits until the look it made is over. */
function manualClock() {
  let due: (() => void) | undefined
  return {
    now: () => 0,
    after: (_ms: number, fn: () => void) => {
      due = fn
      return () => {
        due = undefined
      }
    },
    waits: () => due !== undefined,
    fire: async (): Promise<void> => {
      const fn = due!
      due = undefined
      fn()
      await expect.poll(() => due !== undefined).toBe(true)
    },
  }
}

test('a certificate that is replaced is taken into use once, also after it was away for a moment', async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'kiln-watch-')), 'machine.pem')
  const replace = (): void => {
    writeFileSync(`${file}.new`, 'pem')
    renameSync(`${file}.new`, file)
  }
  replace()
  const clock = manualClock()
  let renewals = 0
  const stop = watchCertificate(file, clock, createLog('test', 'silent'), () => {
    renewals++
  })
  await clock.fire()
  expect(renewals).toBe(0)
  replace()
  await clock.fire()
  await clock.fire()
  expect(renewals).toBe(1)
  rmSync(file)
  await clock.fire()
  replace()
  await clock.fire()
  expect(renewals).toBe(2)
  stop()
  expect(clock.waits()).toBe(false)
})
