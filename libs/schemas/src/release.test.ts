import { expect, test } from 'vitest'
import { compareVersions, ReleaseVersion } from './release.ts'

test('versions order as semver says', () => {
  const ordered = [
    '0.1.0-alpha',
    '0.1.0-alpha.1',
    '0.1.0-alpha.beta',
    '0.1.0-beta.2',
    '0.1.0-beta.11',
    '0.1.0',
    '0.9.0',
    '0.10.0',
    '1.0.0',
  ]
  for (const [i, a] of ordered.entries()) {
    for (const [j, b] of ordered.entries()) {
      expect(Math.sign(compareVersions(a, b)), `${a} ${b}`).toBe(Math.sign(i - j))
    }
  }
})

test('a version that could leave its folder is none', () => {
  for (const bad of ['../1.0.0', '1.0', '1.0.0/..', '01.0.0', '', '1.0.0+b', 'v1.0.0']) {
    expect(ReleaseVersion.safeParse(bad).success, bad).toBe(false)
  }
})
