import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const repository = join(import.meta.dirname, '../../..')
const text = readFileSync(join(repository, 'docs/reference/ignition-rows.md'), 'utf8')

test('every file that the list of proofs names is there, and every row has a proof or says that it has none', () => {
  const names = [...text.matchAll(/`([\w./-]+\.(?:ts|txt))`/g)].map((match) => match[1]!)
  expect(names.length).toBeGreaterThan(50)
  const missing = names.filter(
    (name) => !existsSync(join(repository, name)) && !existsSync(join(import.meta.dirname, name)),
  )
  expect(missing).toEqual([])
  const rows = text.split('\n').filter((line) => line.startsWith('| ') && !/^\| (---|rule)/.test(line))
  const known = /`|reports|units|black box|butane|not shown: /
  expect(rows.filter((row) => !known.test(row.split(' | ').slice(1).join(' ')))).toEqual([])
})
