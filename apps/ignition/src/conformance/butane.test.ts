import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { casesDefault, runButaneCases } from './butane.ts'

test.skipIf(!existsSync(casesDefault))("the reference's translations come out the same", async () => {
  const differences: string[] = []
  const counts = await runButaneCases({
    casesDir: casesDefault,
    print: (line) => void differences.push(line.slice(0, 300)),
  })
  expect(differences).toEqual([])
  expect(counts.passed).toBeGreaterThan(300)
})
