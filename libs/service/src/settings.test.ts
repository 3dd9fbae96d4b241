import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import * as z from 'zod'
import { Fault } from './fault.ts'
import { loadSettings } from './settings.ts'

const schema = z.object({
  name: z.string().default('none'),
  clientPort: z.coerce.number().int().default(2379),
})
const source = { app: 'kv', prefix: 'KILN_KV', argv: [] as string[], env: {} as Record<string, string> }

function rootWith(files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), 'kiln-settings-'))
  mkdirSync(join(root, 'etc/kiln/kv.toml.d'), { recursive: true })
  for (const [path, text] of Object.entries(files)) writeFileSync(join(root, path), text)
  return root
}

test('flags override the environment, which overrides drop-ins, which override the file', () => {
  const root = rootWith({
    'etc/kiln/kv.toml': 'name = "file"\nclientPort = 1',
    'etc/kiln/kv.toml.d/10.toml': 'clientPort = 2',
  })
  expect(loadSettings(schema, { ...source, root })).toEqual({ name: 'file', clientPort: 2 })
  const env = { KILN_KV_CLIENT_PORT: '3' }
  expect(loadSettings(schema, { ...source, root, env }).clientPort).toBe(3)
  expect(loadSettings(schema, { ...source, root, env, argv: ['--client-port', '4'] }).clientPort).toBe(4)
})

test('every problem is reported at once', () => {
  const root = rootWith({ 'etc/kiln/kv.toml': 'nmae = "x"' })
  try {
    loadSettings(schema, { ...source, root, env: { KILN_KV_CLIENT_PORT: 'x' } })
    expect.unreachable()
  } catch (error) {
    expect(error).toBeInstanceOf(Fault)
    expect((error as Fault).code).toBe('SETTINGS_INVALID')
    expect((error as Fault).message).toMatch(/unknown setting nmae.*clientPort/)
  }
})

test('an unknown flag is refused', () => {
  expect(() => loadSettings(schema, { ...source, root: rootWith({}), argv: ['--nope', '1'] })).toThrow(/nope/)
})
