import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { simulatedRun } from './simulated-run.ts'
import { openTargetRoot } from './target-root.ts'

test('a directory where a file of the system belongs is told of by name, and nothing is left beside it', () => {
  const { run, root, folder } = simulatedRun()
  mkdirSync(join(root, 'etc/passwd'), { recursive: true })
  const target = openTargetRoot(run)
  const fault = { code: 'PATH_EXISTS', message: expect.stringContaining('/etc/passwd is a directory') }
  expect(() => target.write('/etc/passwd', 'x', 0o644)).toThrow(expect.objectContaining(fault))
  expect(() => target.read('/etc/passwd')).toThrow(expect.objectContaining(fault))
  expect(readdirSync(join(root, 'etc'))).toEqual(['passwd'])
  rmSync(folder, { recursive: true })
})
