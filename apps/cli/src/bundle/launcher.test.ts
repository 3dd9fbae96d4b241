import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { imageLauncher } from './launcher.ts'

test('the daemons beside the pods are frugal, the store is not', () => {
  expect(imageLauncher('kiln-kv')).toBe('#!/bin/sh\nexec /usr/bin/node /usr/lib/kiln/kiln-kv.mjs "$@"\n')
  for (const name of ['kiln-runtime', 'kiln-update']) {
    expect(imageLauncher(name)).toMatch(
      /^#!\/bin\/sh\nexport MALLOC_ARENA_MAX=1\nexec \/usr\/bin\/node --max-semi/,
    )
    expect(imageLauncher(name)).toContain(` /usr/lib/kiln/${name}.mjs "$@"\n`)
  }
})

test("this Node knows the launchers' flags", () => {
  const flags = imageLauncher('kiln-update')
    .match(/ --[a-z0-9=-]+/g)!
    .map((flag) => flag.trim())
  const script = 'console.log(JSON.stringify(process.execArgv))'
  const output = execFileSync(process.execPath, [...flags, '-e', script], { encoding: 'utf8', stdio: 'pipe' })
  expect(JSON.parse(output)).toEqual(expect.arrayContaining(flags))
  expect(flags.length).toBeGreaterThan(0)
})
