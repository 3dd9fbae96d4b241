import { lstatSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { answerFront, questionBytesMax } from '@kiln/oci-runtime'
import { Fault } from '@kiln/service'
import { answerHeading, headingBytes, questionLength, scriptIdentity } from './asked.ts'

/** Who asks gives up after 2 s, so a question that takes longer is for nobody. */
const patienceMs = 2000
/** Questions at a time; who comes later is refused and starts a Node of its own. */
const askersMax = 256
/** Bytes of unfinished questions together. */
const heldBytesMax = 4 * questionBytesMax
/** Bytes of a path in a socket's address. */
const pathBytesMax = 107

export type PlannerService = { answered(): number; stop(): Promise<void> }

/**
 * Answers the front's questions on a unix socket (0600, in a folder that nobody else may enter) as a Node of its own would: planning reads
 * nothing but the question. `script` is the `kiln-oci.mjs` that is run here. A service that is there already loses the place to this one.
 */
export async function servePlanner(options: { socket: string; script: string }): Promise<PlannerService> {
  const { socket: path } = options
  const identity = scriptIdentity(options.script)
  const own = `${path}.${process.pid}`
  if (!path.startsWith('/') || Buffer.byteLength(own) > pathBytesMax)
    throw new Fault('USAGE', `--socket ${path}: not an absolute path of at most ${pathBytesMax - 12} bytes`)
  claimFolder(dirname(path))
  const held = { bytes: 0, answered: 0 }
  const server = createServer({ allowHalfOpen: true }, (asker) => listenTo(asker, identity, held))
  server.maxConnections = askersMax
  rmSync(own, { force: true })
  const before = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ path: own, backlog: askersMax }, resolve)
    })
  } catch (cause) {
    throw new Fault('OCI_PLANNER_SOCKET', `cannot listen at ${own}`, { cause })
  } finally {
    process.umask(before)
  }
  server.on('error', () => undefined)
  const mine = lstatSync(own).ino
  renameSync(own, path)
  return {
    answered: () => held.answered,
    stop: async () => {
      if (lstatSync(path, { throwIfNoEntry: false })?.ino === mine) rmSync(path, { force: true })
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The folder is ours alone: made so, or found so. One that others may enter is not changed, it may be `/tmp`. */
function claimFolder(folder: string): void {
  mkdirSync(dirname(folder), { recursive: true, mode: 0o755 })
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const found = lstatSync(folder)
  if (!found.isDirectory() || found.uid !== process.geteuid?.() || (found.mode & 0o077) !== 0) {
    throw new Fault('OCI_PLANNER_SOCKET', `${folder} is not a folder that we alone may enter`, {
      remedy: 'name a socket in a folder that is not there yet, or has mode 0700',
    })
  }
}

/** One question of one asker. Whatever is wrong with it ends the connection, and the asker helps itself. */
function listenTo(asker: Socket, identity: Buffer, held: { bytes: number; answered: number }): void {
  const chunks: Buffer[] = []
  let got = 0
  let wanted = headingBytes
  const deadline = setTimeout(() => asker.destroy(), patienceMs)
  asker.on('error', () => undefined)
  asker.on('end', () => asker.destroy())
  asker.on('close', () => {
    clearTimeout(deadline)
    held.bytes -= got
  })
  asker.on('data', (chunk) => {
    chunks.push(chunk)
    got += chunk.length
    held.bytes += chunk.length
    if (held.bytes > heldBytesMax) return void asker.destroy()
    if (got < wanted) return
    const heading = joined(chunks, headingBytes)
    if (wanted === headingBytes) {
      const length = questionLength(heading, identity)
      if (length === undefined) return void asker.destroy()
      wanted += length
    }
    if (got < wanted) return
    if (got > wanted) return void asker.destroy()
    const answer = answerFront(joined(chunks, wanted).subarray(headingBytes))
    held.answered++
    asker.end(Buffer.concat([answerHeading(heading, answer.length), answer]))
  })
}

/** The first bytes of what came, as one buffer that takes the place of the pieces it needs. */
function joined(chunks: Buffer[], length: number): Buffer {
  if (chunks[0]!.length < length) chunks.splice(0, chunks.length, Buffer.concat(chunks))
  return chunks[0]!.subarray(0, length)
}
