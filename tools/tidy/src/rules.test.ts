import { expect, test } from 'vitest'
import type { Package } from './packages.ts'
import {
  checkBudgets,
  checkErrorCodes,
  checkLayers,
  checkProcess,
  checkPurity,
  checkReferences,
  checkShape,
} from './rules.ts'

const sound: Package = {
  folder: 'libs/raft',
  name: '@kiln/raft',
  layer: 'core',
  dependencies: [],
  devDependencies: [],
  references: [],
  hasReadme: true,
  sources: [{ path: 'libs/raft/src/step.ts', text: 'export const one = 1\n' }],
}
const service: Package = { ...sound, folder: 'libs/service', name: '@kiln/service', layer: 'io' }

test('a sound package has no problems', () => {
  for (const check of [checkLayers, checkPurity, checkReferences, checkShape, checkProcess])
    expect(check([sound])).toEqual([])
})

test('core may not depend on io, and apps never on apps', () => {
  const core = { ...sound, dependencies: ['@kiln/service'] }
  expect(checkLayers([core, service]).map((problem) => problem.message)).toEqual([
    'core may not depend on @kiln/service, which is io',
  ])
  const kv: Package = { ...sound, folder: 'apps/kv', name: '@kiln/kv', layer: 'app' }
  const cli: Package = { ...kv, folder: 'apps/cli', name: '@kiln/cli', dependencies: ['@kiln/kv'] }
  expect(checkLayers([kv, cli])).toHaveLength(1)
})

test('core code that reads the clock, files or randomness is found, its tests are free', () => {
  const impure = ['Date.now()', 'Math.random()', "import fs from 'node:fs'", 'setTimeout(f)', 'process.env']
  for (const text of impure) {
    expect(checkPurity([{ ...sound, sources: [{ path: 'libs/raft/src/a.ts', text }] }])).toHaveLength(1)
    expect(checkPurity([{ ...sound, sources: [{ path: 'libs/raft/src/a.test.ts', text }] }])).toEqual([])
  }
})

test('references and dependencies must agree in both directions', () => {
  const missing = { ...sound, layer: 'io' as const, dependencies: ['@kiln/service'] }
  expect(checkReferences([missing, service])).toHaveLength(1)
  expect(checkReferences([{ ...sound, references: ['libs/service'] }, service])).toHaveLength(1)
})

test('long files, empty names and missing READMEs are found', () => {
  const long = { path: 'libs/raft/src/a.ts', text: '\n'.repeat(601) }
  const vague = { path: 'libs/raft/src/utils.ts', text: '' }
  expect(checkShape([{ ...sound, hasReadme: false, sources: [long, vague] }])).toHaveLength(3)
})

test('only process owners end the process', () => {
  const text = 'process.exit(1)'
  const owner = { ...sound, sources: [{ path: 'apps/kv/src/main.ts', text }] }
  expect(checkProcess([owner])).toEqual([])
  expect(checkProcess([{ ...sound, sources: [{ path: 'apps/kv/src/watch.ts', text }] }])).toHaveLength(1)
})

test('a fault code without a row in the errors page is found', () => {
  const text = "throw new Fault('DISK_FULL', 'writing')"
  const one = { ...sound, sources: [{ path: 'libs/raft/src/a.ts', text }] }
  expect(checkErrorCodes([one], '| `DISK_FULL` | no space |')).toEqual([])
  expect(checkErrorCodes([one], '| `DISK_FULLER` | no space |')).toHaveLength(1)
})

test('native code and the launcher have budgets', () => {
  const launcher = { path: 'kiln', text: '\n'.repeat(200) }
  expect(checkBudgets([{ path: 'a.c', text: '\n'.repeat(4000) }], launcher)).toHaveLength(2)
})
