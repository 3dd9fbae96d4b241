import { readSync, writeSync } from 'node:fs'
import { answerFront, questionBytesMax } from '@kiln/oci-runtime'
import { printing } from './printing.ts'

/**
 * The planner's own process, started by the C front (`kiln-oci`): `plan` answers one question on stdin, `planner` those of a socket until
 * it is ended, the other commands print.
 */
const [command = '', root = '', ...args] = process.argv.slice(2)
if (command === 'plan') {
  const answer = answerFront(readQuestion())
  for (let at = 0; at < answer.length; ) at += writeSync(1, answer, at)
} else if (command === 'planner') {
  const { runPlanner } = await import('./planner-daemon.ts')
  await runPlanner({ script: process.argv[1]!, args, env: process.env })
} else {
  process.exitCode = await printing(command, root, args)
}

/** Stdin to its end, or just beyond what a question may have: that one is refused. */
function readQuestion(): Buffer {
  const chunks: Buffer[] = []
  for (let left = questionBytesMax + 1; left > 0; ) {
    const chunk = Buffer.allocUnsafe(Math.min(left, 1 << 18))
    const length = readSync(0, chunk)
    if (length === 0) break
    chunks.push(chunk.subarray(0, length))
    left -= length
  }
  return Buffer.concat(chunks)
}
