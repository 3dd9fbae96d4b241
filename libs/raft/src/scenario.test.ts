import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { runScenario } from './scenario.ts'

const folder = new URL('../testdata/', import.meta.url)

/** A file holds blocks separated by blank lines: comments, commands, `----`, what comes of it. */
function rewrite(text: string): string {
  const run = runScenario()
  return text
    .trimEnd()
    .split(/\n\n+/)
    .map((block) => {
      const commands = block.split('\n----')[0]!
      const lines = commands.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
      if (lines.length === 0) return commands
      return `${commands}\n----\n${run(lines)}`
    })
    .join('\n\n')
    .concat('\n')
}

for (const name of readdirSync(folder).filter((file) => file.endsWith('.txt'))) {
  test(`scenario ${name.replace('.txt', '').replaceAll('-', ' ')}`, () => {
    const url = new URL(name, folder)
    const text = readFileSync(url, 'utf8')
    const actual = rewrite(text)
    if (process.env['UPDATE'] === '1') writeFileSync(url, actual)
    else expect(actual).toBe(text)
  })
}
