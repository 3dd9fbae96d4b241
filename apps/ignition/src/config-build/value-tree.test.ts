import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseIgnition, parsePod } from '@kiln/schemas'
import { translateTree } from '@kiln/schemas/butane'
import { expect, test } from 'vitest'
import { evaluate } from './command.ts'
import { sourceOfValue } from './value-tree.ts'

const documents = { parseIgnition, parsePod }

/** Runs a module and gives the findings about what it made. */
async function findings(text: string): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-config-'))
  try {
    const module = join(folder, 'machine.ts')
    writeFileSync(module, text)
    const { problems } = translateTree(sourceOfValue(await evaluate(module), text), { documents })
    return problems.map(({ path, line, column }) => `${path} ${line}:${column}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

test('a finding points at the literal in the module, through constants and calls', async () => {
  const text = `import type { MachineConfig } from './kiln-config.ts'
const paths = ['relative']
const files = [{ path: '/a' }, /* second, */ { path: 'b', "mode": 0o644 }]
const check = (config: MachineConfig): MachineConfig => config
export default check({
  variant: 'kiln',
  version: '1.0.0',
  storage: {
    files,
    directories: [{ path: paths[0] }],
  },
  wrong: \`a, b\`,
})
`
  expect(await findings(text)).toEqual([
    '$.wrong 12:3',
    '$.storage.files.1.path 3:54',
    '$.storage.directories.0.path 10:27',
  ])
})

test('what the code computed has the place of what is nearest to it', async () => {
  const text = `const base = { variant: 'kiln', version: '1.0.0' }
export default async () => ({
  ...base,
  systemd: { units: ['a', 'b'].map((name) => ({ name })) },
})
`
  expect(await findings(text)).toEqual(['$.systemd.units.0.name 4:22', '$.systemd.units.1.name 4:27'])
})

test('a module that fails gives no config', async () => {
  await expect(findings("throw new Error('no')")).rejects.toThrow('gave no config')
})
