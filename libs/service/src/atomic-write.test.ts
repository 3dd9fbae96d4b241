import { mkdtempSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { atomicWrite } from './atomic-write.ts'

test('a file is replaced whole, with its mode, and no neighbour stays behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-atomic-'))
  const path = join(folder, 'key')
  await atomicWrite(path, 'one', { mode: 0o600 })
  await atomicWrite(path, 'two', { mode: 0o600 })
  expect(readFileSync(path, 'utf8')).toBe('two')
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(readdirSync(folder)).toEqual(['key'])
})

test('a write that cannot happen leaves nothing', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-atomic-'))
  await expect(atomicWrite(join(folder, 'missing/key'), 'x')).rejects.toThrow(/ENOENT/)
  expect(readdirSync(folder)).toEqual([])
})
