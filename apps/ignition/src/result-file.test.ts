import { lstatSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { writeResult } from './result-file.ts'
import { simulatedRun } from './simulated-run.ts'
import { openTargetRoot } from './target-root.ts'

test('the report of a run holds those of the runs before it, for root alone', () => {
  const { run, root } = simulatedRun()
  mkdirSync(join(root, 'etc'), { recursive: true })
  const target = openTargetRoot(run)
  const at = new Date('2026-01-02T03:04:05Z')
  expect(writeResult(target, { bootId: 'one', at, userConfigProvided: false })).toEqual({ repeated: false })
  expect(writeResult(target, { bootId: 'two', at, userConfigProvided: true })).toEqual({ repeated: true })
  const path = join(root, 'etc/.ignition-result.json')
  const report = JSON.parse(readFileSync(path, 'utf8'))
  expect(report).toMatchObject({
    provisioningBootID: 'two',
    userConfigProvided: true,
    previousReport: { provisioningBootID: 'one', userConfigProvided: false },
  })
  expect(report.provisioningDate).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$/)
  expect(new Date(report.provisioningDate)).toEqual(at)
  expect(lstatSync(path).mode & 0o7777).toBe(0o600)
})
