import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const packageDir = fileURLToPath(new URL('..', import.meta.url))
const binDir = fileURLToPath(new URL('../../../node_modules/.bin', import.meta.url))

function read(dir: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(dir).map((name) => [name, readFileSync(path.join(dir, name), 'utf8')]),
  )
}

test('the generated code is what the protocol files give', () => {
  const out = mkdtempSync(path.join(tmpdir(), 'kiln-generated-'))
  try {
    execFileSync(path.join(binDir, 'buf'), ['generate', '--output', out], {
      cwd: packageDir,
      env: { PATH: `${binDir}:${process.env.PATH}`, HOME: out },
    })
    const fresh = read(path.join(out, 'src/generated'))
    const committed = read(path.join(packageDir, 'src/generated'))
    expect(Object.keys(committed)).toEqual(Object.keys(fresh))
    for (const name of Object.keys(fresh))
      expect(
        committed[name] === fresh[name],
        `${name} is stale: run npm run generate -w @kiln/etcd-api`,
      ).toBe(true)
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
})
