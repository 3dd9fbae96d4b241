import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parsePod } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { demoPods } from './demo-pod.ts'
import { buildHelloImage } from './hello-image.ts'

test('the same busybox makes the same image', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-hello-'))
  writeFileSync(join(folder, 'busybox'), 'a static program')
  const sums = []
  for (const name of ['one.tar', 'two.tar']) {
    await buildHelloImage(join(folder, name), join(folder, 'busybox'))
    sums.push(
      createHash('sha256')
        .update(readFileSync(join(folder, name)))
        .digest('hex'),
    )
  }
  expect(sums[0]).toBe(sums[1])
})

test('the demo pod is one that the runtime takes', () => {
  for (const text of demoPods.values()) expect(parsePod(parse(text)).problems).toEqual([])
})
