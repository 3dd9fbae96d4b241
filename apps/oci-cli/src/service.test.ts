import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { headingBytes } from './asked.ts'
import { servePlanner } from './service.ts'
import { leftovers, prepare, unable } from './testing/bundle.ts'
import { startPlanner } from './testing/planner-process.ts'

/** The planner as a service: when the front asks it, when it does not, and what a hostile one can do. */
if (unable) console.log(`skipped: the planner's service of kiln-oci: ${unable}`)
const onHost = test.skipIf(unable !== undefined)
const someone = 42_424

let host: Awaited<ReturnType<typeof prepare>>
let script = ''
beforeAll(async () => {
  if (unable) return
  host = await prepare()
  chmodSync(host.base, 0o755)
  script = join(host.base, 'lib/kiln-oci.mjs')
}, 120_000)

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup()
})

let places = 0
const place = () => join(host.base, `place${++places}`, 'socket')
type Ran = { code: number | null; out: string; err: string; log: string }

/** Runs the front while this process serves: with its debug lines, which say where the plan came from. */
async function run(socket: string, bundle: string, env: Record<string, string> = {}): Promise<Ran> {
  const log = join(host.base, `log${++places}`)
  const args = ['--root', host.root, '--debug', '--log', log, 'run', '--bundle', bundle, 'asked']
  const child = spawn(host.command, args, {
    env: { ...process.env, KILN_OCI_PLANNER_SOCKET: socket, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const texts = { out: '', err: '' }
  child.stdout.on('data', (chunk) => (texts.out += chunk))
  child.stderr.on('data', (chunk) => (texts.err += chunk))
  const [code] = await once(child, 'close')
  const text = existsSync(log) ? readFileSync(log, 'utf8') : ''
  expect(leftovers(host.base, host.root, 'asked')).toEqual([])
  return { code, ...texts, log: text }
}

/** A service of the caller's own that answers as `answer` does. */
async function impostor(answer: (asker: Socket, question: Buffer) => void): Promise<string> {
  const socket = place()
  mkdirSync(join(socket, '..'))
  const server: Server = createServer({ allowHalfOpen: true }, (asker) => {
    let question = Buffer.alloc(0)
    asker.on('error', () => undefined)
    asker.on('data', (chunk) => {
      question = Buffer.concat([question, chunk])
      if (question.length < headingBytes) return
      if (question.length === headingBytes + Number(question.readBigUInt64LE(56))) answer(asker, question)
    })
    cleanups.push(() => asker.destroy())
  })
  server.listen(socket)
  await once(server, 'listening')
  cleanups.push(() => server.close())
  return socket
}

const used = "the planner's service answered"
const unused = "the planner's service gave no answer to this question"

onHost('the service makes the plans of create, run, exec and update, and no Node is started', async () => {
  const socket = place()
  const planner = await startPlanner(host.command, socket)
  cleanups.push(() => planner.stop())
  expect(statSync(socket).mode & 0o777).toBe(0o600)
  expect(statSync(join(socket, '..')).mode & 0o777).toBe(0o700)
  const { oci, bundle } = host
  // With this number of seconds no Node is started.
  const env = { KILN_OCI_PLANNER_SOCKET: socket, KILN_OCI_PLANNER_SECONDS: '0' }
  expect(oci(['run', '--bundle', bundle('echo ran'), 'one'], { env })).toEqual({
    code: 0,
    out: 'ran\n',
    err: '',
  })
  expect(oci(['create', '--bundle', bundle('sleep 100'), 'two'], { env }).code).toBe(0)
  expect(oci(['start', 'two'], { env }).code).toBe(0)
  expect(oci(['exec', 'two', '/bin/echo', 'in'], { env }).out).toBe('in\n')
  expect(oci(['update', '--pids-limit', '20', 'two'], { env })).toMatchObject({ code: 0, err: '' })
  expect(oci(['delete', '--force', 'two'], { env }).code).toBe(0)
  // What is wrong with a document is said by the service, too.
  const wrong = oci(['run', '--bundle', bundle('true', { process: { cwd: 'tmp' } }), 'one'], { env })
  expect(wrong).toMatchObject({ code: 1, out: '' })
  expect(wrong.err).toContain('config.process.cwd')
  // Without it, the same environment cannot run: so it was the service.
  expect(await planner.stop()).toBe(5)
  cleanups.length = 0
  expect(existsSync(socket)).toBe(false)
  expect(oci(['run', '--bundle', bundle('true'), 'one'], { env }).err).toContain('KILN_OCI_PLANNER_SECONDS')
})

onHost('without a service, or when it is turned off, one Node a call does the same', async () => {
  const bundle = host.bundle('echo ran')
  const socket = place()
  const nobody = await run(socket, bundle)
  expect(nobody).toMatchObject({ code: 0, out: 'ran\n' })
  const service = await servePlanner({ socket, script })
  cleanups.push(() => service.stop())
  expect((await run(socket, bundle)).log).toContain(used)
  const off = await run('', bundle)
  expect(off).toMatchObject({ code: 0, out: 'ran\n', err: '' })
  expect(off.log).not.toContain('service')
  expect(service.answered()).toBe(1)
})

onHost('a service of another build gives no answer', async () => {
  const other = join(host.base, 'other.mjs')
  writeFileSync(other, '')
  const socket = place()
  const service = await servePlanner({ socket, script: other })
  cleanups.push(() => service.stop())
  const done = await run(socket, host.bundle('echo ran'))
  expect(done).toMatchObject({ code: 0, out: 'ran\n', err: '' })
  expect(done.log).toContain(unused)
  expect(service.answered()).toBe(0)
})

onHost("a stranger's socket is not asked, and a stranger does not reach ours", async () => {
  const folder = join(host.base, 'stranger')
  mkdirSync(folder)
  chownSync(folder, someone, someone)
  const [theirs, heard] = [join(folder, 'socket'), join(folder, 'heard')]
  const code = `require('net').createServer((s) => s.on('data', (d) => require('fs').writeFileSync('${heard}', d)))
    .listen('${theirs}', () => console.log('up'))`
  const stranger = spawn(process.execPath, ['-e', code], {
    uid: someone,
    gid: someone,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  cleanups.push(() => stranger.kill('SIGKILL'))
  await once(stranger.stdout, 'data')
  const done = await run(theirs, host.bundle('echo ran'))
  expect(done).toMatchObject({ code: 0, out: 'ran\n', err: '' })
  expect(done.log).not.toContain('service')
  expect(existsSync(heard)).toBe(false)
  const ours = place()
  const service = await servePlanner({ socket: ours, script })
  cleanups.push(() => service.stop())
  const env = { KILN_OCI_PLANNER_SOCKET: ours, XDG_RUNTIME_DIR: folder }
  host.execute(host.command, ['run', '--bundle', host.bundle('true'), 'asked'], { id: someone, env })
  expect(service.answered()).toBe(0)
})

type Answer = (asker: Socket, question: Buffer) => void
const heading = (question: Buffer, length: number) => {
  const copy = Buffer.from(question.subarray(0, headingBytes))
  copy.writeBigUInt64LE(BigInt(length), 56)
  return copy
}
const hostile: [string, Answer][] = [
  ['ends at once', (asker) => asker.destroy()],
  ['says nothing', (asker) => asker.end()],
  ['answers garbage', (asker) => asker.end('x'.repeat(10_000))],
  [
    'answers too much',
    (asker, question) => {
      asker.write(heading(question, 100_000_000))
      asker.end(Buffer.alloc(100_000_000))
    },
  ],
  [
    'answers less than it says',
    (asker, question) => asker.end(Buffer.concat([heading(question, 100), Buffer.from('Pabc')])),
  ],
  [
    'answers more than it says',
    (asker, question) => asker.end(Buffer.concat([heading(question, 2), Buffer.from('Pabc')])),
  ],
  [
    'answers another question',
    (asker, question) => {
      const other = heading(question, 2)
      other[40]! ^= 1
      asker.end(Buffer.concat([other, Buffer.from('Pa')]))
    },
  ],
  [
    'never ends its answer',
    (asker, question) => void asker.write(Buffer.concat([heading(question, 4), Buffer.from('Pabc')])),
  ],
  [
    'answers a byte at a time',
    (asker, question) => {
      const drip = setInterval(() => asker.write(heading(question, 4).subarray(0, 1)), 100)
      cleanups.push(() => clearInterval(drip))
    },
  ],
]

for (const [what, answer] of hostile) {
  onHost(`a service that ${what} is not waited for, and the container is the right one`, async () => {
    const done = await run(await impostor(answer), host.bundle('echo ran'))
    expect(done).toMatchObject({ code: 0, out: 'ran\n', err: '' })
    expect(done.log).toContain(unused)
  })
}

onHost('a plan that is none is refused with a clear error', async () => {
  for (const [text, said] of [
    ['Pnonsense', 'bad plan: not a plan'],
    ['Ewhy not', 'why not'],
    ['Wone\nzz', 'bad plan: it is no plan'],
  ] as const) {
    const socket = await impostor((asker, question) =>
      asker.end(Buffer.concat([heading(question, text.length), Buffer.from(text)])),
    )
    const done = await run(socket, host.bundle('echo ran'))
    expect(done).toMatchObject({ code: 1, out: '' })
    expect(done.log).toContain(said)
  }
})

onHost('the service takes no folder that others may enter, and the place of one that ended', async () => {
  const socket = place()
  mkdirSync(join(socket, '..'), { mode: 0o755 })
  await expect(servePlanner({ socket, script })).rejects.toThrow('not a folder that we alone may enter')
  expect(statSync(join(socket, '..')).mode & 0o777).toBe(0o755)
  await expect(servePlanner({ socket: `/${'x'.repeat(120)}`, script })).rejects.toThrow('--socket')
  chmodSync(join(socket, '..'), 0o700)
  writeFileSync(socket, 'left behind')
  const first = await servePlanner({ socket, script })
  expect((await run(socket, host.bundle('true'))).log).toContain(used)
  const second = await servePlanner({ socket, script })
  await first.stop()
  expect((await run(socket, host.bundle('true'))).log).toContain(used)
  expect([first.answered(), second.answered()]).toEqual([1, 1])
  await second.stop()
  expect(existsSync(socket)).toBe(false)
})
