import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'kiln-config-build-'))
const program = join(import.meta.dirname, '../main.ts')

afterAll(() => rmSync(folder, { recursive: true }))

const config = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, 'config', ...args], {
    cwd: folder,
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}

test('a module becomes a config; one that is not there or throws is told without a stack of ours', () => {
  writeFileSync(join(folder, 'good.ts'), "export default { variant: 'kiln', version: '1.0.0' }\n")
  expect(config('build', 'good.ts')).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('"version":"3.6.0"'),
  })

  const missing = config('build', 'nothere.ts')
  expect(missing.status).toBe(1)
  expect(missing.stderr).toMatch(/CONFIG_MODULE_FAILED.*nothere\.ts cannot be read/)
  expect(missing.stderr).not.toContain('at runConfig')

  writeFileSync(join(folder, 'bad.ts'), "throw new Error('as the module says')\n")
  const bad = config('build', 'bad.ts')
  expect(bad.status).toBe(1)
  expect(bad.stderr).toMatch(/as the module says[\s\S]*CONFIG_MODULE_FAILED.*gave no config/)
  expect(bad.stderr).not.toContain('at runConfig')
})

test('help is no wrong command line', () => {
  expect(config('build', '--help')).toMatchObject({ status: 0, stderr: '' })
  expect(config('build', '--what').status).toBe(2)
})
