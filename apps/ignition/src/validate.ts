import { readFileSync } from 'node:fs'
import { describeIgnitionProblem, parseIgnition } from '@kiln/schemas'

/** Checks config files; a line for each problem with its place. False when any file has an error. */
export function validateFiles(paths: string[], say: (line: string) => void): boolean {
  let valid = true
  for (const path of paths) {
    let text: string
    try {
      text = readFileSync(path === '-' ? 0 : path, 'utf8')
    } catch (error) {
      say(`${path}: cannot be read: ${(error as Error).message}`)
      valid = false
      continue
    }
    const { problems } = parseIgnition(text)
    for (const problem of problems) say(`${path}: ${describeIgnitionProblem(problem)}`)
    if (problems.some(({ severity }) => severity === 'error')) valid = false
  }
  return valid
}
