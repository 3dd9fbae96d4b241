import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Lock, lockChanges, readLock, readRecipe } from './recipe.ts'
import { describeChange } from './relock.ts'

const infraDir = join(import.meta.dirname, '../../../../infra')

const lock = (packages: Record<string, string>): Lock => ({
  formatVersion: 1,
  suite: 'bookworm',
  sourceDateEpoch: 0,
  packages: Object.entries(packages).map(([name, version]) => ({
    name,
    version,
    arch: 'amd64',
    sizeBytes: 1,
    sha256: Buffer.from(name + version)
      .toString('hex')
      .padEnd(64, '0')
      .slice(0, 64),
  })),
})

test('relocking says which packages were added, removed and changed', () => {
  const changes = lockChanges(
    lock({ bash: '5.1', dash: '1', zstd: '1' }),
    lock({ bash: '5.2', dash: '1', less: '2' }),
  )
  expect(changes.map(describeChange)).toEqual(['bash: 5.1 -> 5.2', 'less: added 2', 'zstd: removed 1'])
})

test('the lock in the repository covers the recipe and nothing that was left out', async () => {
  const recipe = await readRecipe(infraDir)
  const names = new Set((await readLock(infraDir)).packages.map((entry) => entry.name))
  const leftOut = Object.values(recipe.leftOut).flat()
  const wanted = [...recipe.packages, ...recipe.toolPackages].filter((name) => !leftOut.includes(name))
  expect(wanted.filter((name) => !names.has(name))).toEqual([])
  expect(leftOut.filter((name) => names.has(name))).toEqual([])
})

test('the lock names no host', () => {
  expect(readFileSync(join(infraDir, 'image/lock.json'), 'utf8')).not.toMatch(/https?:|\/\//)
})

test('our own units that the recipe wants exist', async () => {
  const { wants } = await readRecipe(infraDir)
  const ours = Object.values(wants)
    .flat()
    .filter((unit) => unit.startsWith('kiln-') || unit === 'boot.mount')
  expect(ours.length).toBeGreaterThan(0)
  expect(
    ours.filter((unit) => !existsSync(join(infraDir, 'units', unit)) && !unit.endsWith('.timer')),
  ).toEqual([])
})

test.each(['image/init.sh', 'image/mount-root.sh', 'image/usr/lib/kiln/health-deadline'])(
  '%s is valid shell',
  (script) => {
    expect(spawnSync('sh', ['-n', join(infraDir, script)], { encoding: 'utf8' }).stderr).toBe('')
  },
)
