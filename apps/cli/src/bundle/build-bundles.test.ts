import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { bundleProgram } from './build-bundles.ts'
import { isPartOf } from './parts.ts'

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kiln-bundle-'))
  mkdirSync(join(folder, 'lib'))
})

afterEach(() => rmSync(folder, { recursive: true }))

const bundle = (files: Record<string, string>): Promise<number> => {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  return bundleProgram(join(folder, 'lib'), 'kiln-x', join(folder, 'main.ts'))
}

const run = (...args: string[]): string =>
  execFileSync(process.execPath, [join(folder, 'lib/kiln-x.mjs'), ...args], { encoding: 'utf8' }).trim()

test('what a program loads when needed is a part of its own, and parts of an earlier build are gone', async () => {
  const main =
    "if (process.argv[2]) console.log((await import('./late.ts')).late)\nelse console.log('early')\n"
  await bundle({ 'main.ts': main, 'late.ts': "export const late: string = 'late'\n" })
  const first = readdirSync(join(folder, 'lib'))
  expect(first).toHaveLength(2)
  expect([run(), run('x')]).toEqual(['early', 'late'])
  writeFileSync(join(folder, 'lib/kiln-xylem.mjs'), '')
  await bundle({ 'late.ts': "export const late: string = 'later'\n" })
  expect(run('x')).toBe('later')
  const second = readdirSync(join(folder, 'lib'))
  expect(second).toHaveLength(3)
  expect(second.filter((name) => first.includes(name))).toEqual(['kiln-x.mjs'])
})

test('a program starts without what only a part of it needs from a package of ours', async () => {
  const needed = fileURLToPath(import.meta.resolve('@kiln/schemas'))
  symlinkSync(join(dirname(needed), '../../../node_modules'), join(folder, 'node_modules'))
  await bundle({
    'main.ts': `import { decodeDataUrl as decode, type PodManifest } from '@kiln/schemas'
const pod: PodManifest | undefined = process.argv[2] ? (await import('./late.ts')).pod : undefined
console.log(String(decode('data:,early')), pod === undefined)
`,
    'late.ts': `export { IgnitionConfig } from '@kiln/schemas'
import { parsePod } from '@kiln/schemas'
export const pod = parsePod('{}').pod
`,
  })
  expect(run()).toBe('early true')
  expect(run('x')).toMatch(/^early/)
  const start = readFileSync(join(folder, 'lib/kiln-x.mjs'), 'utf8')
  const parts = [...start.matchAll(/(?:from|import)"\.\/([^"]+)"/g)].map(([, name]) => name!)
  const atStart = ['kiln-x.mjs', ...parts]
    .map((name) => readFileSync(join(folder, 'lib', name), 'utf8'))
    .join()
  expect(atStart).not.toContain('safeParse')
})

test("a program that speaks HTTP does not load Node's fetch with it", async () => {
  await bundle({
    'main.ts': `import http, { createServer } from 'node:http'
import { promises } from 'fs'
import * as path from 'node:path'
const loaded = (process as unknown as { moduleLoadList: string[] }).moduleLoadList
console.log(createServer === http.createServer, typeof promises.readFile, path.join('a', 'b'))
console.log(loaded.some((name) => name.includes('undici')))
`,
  })
  expect(run().split('\n')).toEqual(['true function a/b', 'false'])
})

test('the command line starts where no package of npm is', { timeout: 60_000 }, async () => {
  await bundleProgram(join(folder, 'lib'), 'kiln-x', join(import.meta.dirname, '../main.ts'))
  expect(run('--version')).toMatch(/^\d+\.\d+\.\d+/)
})

test('parts are known by their names', () => {
  expect(isPartOf('kiln', 'kiln.mjs')).toBe(true)
  expect(isPartOf('kiln', 'kiln-6AU6V7I3.mjs')).toBe(true)
  expect(isPartOf('kiln', 'kiln-kv.mjs')).toBe(false)
  expect(isPartOf('kiln', 'kiln-kv-6AU6V7I3.mjs')).toBe(false)
  expect(isPartOf('kiln-kv', 'kiln-kv-6AU6V7I3.mjs')).toBe(true)
})
