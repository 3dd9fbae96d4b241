import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { readPackages, readSources } from './packages.ts'
import {
  checkBudgets,
  checkErrorCodes,
  checkLayers,
  checkProcess,
  checkPurity,
  checkReferences,
  checkShape,
} from './rules.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const packages = readPackages(root)
const problems = [
  ...checkLayers(packages),
  ...checkPurity(packages),
  ...checkReferences(packages),
  ...checkShape(packages),
  ...checkProcess(packages),
  ...checkErrorCodes(packages, readFileSync(`${root}docs/reference/errors.md`, 'utf8')),
  ...checkBudgets(readSources(root, 'libs/linux/native'), {
    path: 'kiln',
    text: readFileSync(`${root}kiln`, 'utf8'),
  }),
]
for (const problem of problems) console.error(`${problem.path}: ${problem.message}`)
console.log(`tidy: ${packages.length} packages, ${problems.length} problems`)
process.exitCode = problems.length === 0 ? 0 : 1
