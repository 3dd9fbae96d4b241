import { readFileSync, writeSync } from 'node:fs'
import { answerFront } from '@kiln/oci-runtime'
import { printing } from './printing.ts'

/**
 * The planner's own process, started by the C front (`kiln-oci`): `plan` answers one question on stdin, the other commands print.
 */
const [command = '', root = '', ...args] = process.argv.slice(2)
if (command === 'plan') {
  const answer = answerFront(readFileSync(0))
  for (let at = 0; at < answer.length; ) at += writeSync(1, answer, at)
} else {
  process.exitCode = await printing(command, root, args)
}
