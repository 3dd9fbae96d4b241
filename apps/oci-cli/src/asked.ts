import { statSync } from 'node:fs'
import { questionBytesMax } from '@kiln/oci-runtime'

/** Bytes of what the front puts before a question: `struct heading` of native/oci-ask.c. */
export const headingBytes = 64
const magic = Buffer.from('KILNASK\0')

/** Names a `kiln-oci.mjs`, as the heading has it: the front asks only a service that is the program it would start itself. */
export function scriptIdentity(path: string): Buffer {
  const { dev, ino, size, mtimeNs } = statSync(path, { bigint: true })
  const identity = Buffer.alloc(32)
  for (const [at, value] of [dev, ino, size, mtimeNs].entries())
    identity.writeBigUInt64LE(BigInt.asUintN(64, value), at * 8)
  return identity
}

/**
 * Bytes of the question after a heading, or undefined when it is not for this program: another version, another build, too much. The
 * nonce is the front's business: it comes back with the answer.
 */
export function questionLength(heading: Buffer, identity: Buffer): number | undefined {
  if (!heading.subarray(0, 8).equals(magic) || !heading.subarray(8, 40).equals(identity)) return undefined
  const length = heading.readBigUInt64LE(56)
  return length > 0n && length <= BigInt(questionBytesMax) ? Number(length) : undefined
}

/** The heading before an answer: the question's, with the answer's length. */
export function answerHeading(heading: Buffer, length: number): Buffer {
  const answer = Buffer.from(heading.subarray(0, headingBytes))
  answer.writeBigUInt64LE(BigInt(length), 56)
  return answer
}
