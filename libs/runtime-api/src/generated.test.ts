import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

test('the generated code is what the protocol file gives', () => {
  const here = fileURLToPath(new URL('..', import.meta.url))
  const programs = fileURLToPath(new URL('../../../node_modules/.bin', import.meta.url))
  const out = mkdtempSync(join(tmpdir(), 'kiln-generated-'))
  try {
    execFileSync(join(programs, 'buf'), ['generate', '--output', out], {
      cwd: here,
      env: { PATH: `${programs}:${process.env['PATH']}`, HOME: out },
    })
    const file = 'src/generated/runtime.ts'
    const stale = readFileSync(join(out, file), 'utf8') !== readFileSync(join(here, file), 'utf8')
    expect(stale, 'run npm run generate -w @kiln/runtime-api').toBe(false)
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
})
