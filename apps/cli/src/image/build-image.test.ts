import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { putInPlace } from './build-image.ts'

const base = mkdtempSync(join(tmpdir(), 'kiln-image-'))
afterAll(() => rmSync(base, { recursive: true }))

test('of two builds of the same inputs the first stays, as it may be in use; other inputs take its place', async () => {
  const dir = join(base, '0.1.0')
  const build = (name: string, inputs: string): string => {
    const partial = join(base, name)
    mkdirSync(partial)
    writeFileSync(join(partial, '.inputs'), inputs)
    writeFileSync(join(partial, 'manifest.json'), JSON.stringify({ name }))
    return partial
  }
  const holds = (): unknown => JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8')).name
  await putInPlace(build('first', 'a'), dir, 'a')
  await putInPlace(build('second', 'a'), dir, 'a')
  expect(holds()).toBe('first')
  await putInPlace(build('third', 'b'), dir, 'b')
  expect(holds()).toBe('third')
  expect(existsSync(join(base, 'third'))).toBe(false)
})
