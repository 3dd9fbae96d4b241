import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import { Fault } from '@kiln/service'
import { Command, CommanderError } from 'commander'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { exitCodeOf } from '../exit-code.ts'
import { programCommand } from '../programs.ts'
import { addStoreCommands } from './program.ts'

type Ran = { code: number; out: string; notes: string }
type RunOptions = {
  input?: string | Buffer
  live?: boolean
  environment?: Record<string, string>
  signal?: AbortSignal
  /** Sees what is printed as it is. */
  onPrint?(out: string): void
}

const folder = mkdtempSync(join(tmpdir(), 'kiln-cli-kv-'))
let endpoint = ''
let stop = async (): Promise<void> => {}

beforeAll(async () => {
  const [client, peer] = [await freePort(), await freePort()]
  endpoint = `http://127.0.0.1:${client}`
  const peerUrl = `http://127.0.0.1:${peer}`
  const { command, args } = programCommand('kiln-kv')
  const flags = {
    name: 'm1',
    'data-dir': join(folder, 'data'),
    'listen-client-urls': endpoint,
    'advertise-client-urls': endpoint,
    'listen-peer-urls': peerUrl,
    'initial-advertise-peer-urls': peerUrl,
    'initial-cluster': `m1=${peerUrl}`,
  }
  const child = spawn(
    command,
    [...args, ...Object.entries(flags).map(([name, value]) => `--${name}=${value}`)],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  stop = () => {
    child.kill('SIGTERM')
    return exited
  }
  let log = ''
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (chunk: Buffer) => {
      log += chunk.toString()
      if (log.includes('"msg":"serving"')) resolve()
    })
    child.once('exit', () => reject(new Error(`the member did not start: ${log}`)))
  })
})

afterAll(async () => {
  await stop()
  rmSync(folder, { recursive: true, force: true })
})

test('what is put is there to get, in lines, as a table and as JSON', async () => {
  expect(await kv('put t/a 1')).toMatchObject({ code: 0, out: 'OK\n' })
  expect(await kv('put t/b', { input: 'from input' })).toMatchObject({ code: 0, out: 'OK\n' })
  expect((await kv('get t/a')).out).toBe('t/a\n1\n')
  expect((await kv('get t/ --prefix --order DESCEND --keys-only')).out).toBe('t/b\nt/a\n')
  expect((await kv('get t/ --prefix --count-only')).out).toBe('2\n')
  expect((await kv('get t/a --print-value-only')).out).toBe('1\n')
  const shown = (await kv('get t/ --prefix', { live: true })).out.split('\n')
  expect(shown[0]).toMatch(/^KEY\s+REVISION\s+VERSION\s+LEASE\s+VALUE$/)
  expect(shown[2]).toMatch(/^t\/b\s+\d+\s+1\s+from input$/)
  const json = JSON.parse((await kv('get t/a --json')).out)
  expect(json).toMatchObject({ count: '1', kvs: [{ key: 'dC9h', version: '1', value: 'MQ==' }] })
})

test('a missing key is exit code 3, a bad argument 2, and nothing reached 6', async () => {
  expect(await kv('get t/none')).toMatchObject({ code: 3, out: '', notes: 'no key t/none\n' })
  expect((await kv('get t/ --prefix --from-key')).code).toBe(2)
  expect((await kv('get t/a --order SIDEWAYS')).code).toBe(2)
  expect((await kv('get')).code).toBe(2)
  expect((await kv('get t/a --rev 999999')).code).toBe(4)
  const nobody = { environment: { ETCDCTL_ENDPOINTS: '127.0.0.1:1', ETCDCTL_COMMAND_TIMEOUT: '300ms' } }
  expect((await kv('get t/a', nobody)).code).toBe(6)
})

test('bytes that are no text are safe on a terminal, and exact elsewhere', async () => {
  const value = Buffer.from([0x1b, 0x5b, 0x41, 0xff, 0x00, 0x5c])
  await kv(`put --base64 ${Buffer.from('raw\xff', 'latin1').toString('base64')} ${value.toString('base64')}`)
  expect((await kv('get raw --prefix --print-value-only', { live: true })).out).toBe(
    '\\x1b[A\\xff\\x00\\\\\n',
  )
  const piped = await kv('get raw --prefix --print-value-only')
  expect(Buffer.from(piped.out, 'latin1')).toEqual(Buffer.concat([value, Buffer.from('\n')]))
  const json = JSON.parse((await kv('get raw --prefix --json')).out)
  expect(Buffer.from(json.kvs[0].value, 'base64')).toEqual(value)
  expect((await kv('get raw --prefix', { live: true })).out).toContain('raw\\xff')
  expect((await kv('put --base64 k !')).code).toBe(2)
})

test('a deleted range is counted and shown', async () => {
  await kv('put d/1 x')
  await kv('put d/2 y')
  expect((await kv('del d/ --prefix --prev-kv')).out).toBe('2\nd/1\nx\nd/2\ny\n')
  expect((await kv('del d/1')).out).toBe('0\n')
})

test('a transaction does one branch, and a line that is none is refused', async () => {
  const text = 'create("x/new") = "0"\n\nput x/new "a \\"quoted\\" value"\n\nget x/new\n'
  expect((await kv('txn', { input: text })).out).toBe('SUCCESS\n\nOK\n')
  expect((await kv('txn', { input: text })).out).toBe('FAILURE\n\nx/new\na "quoted" value\n')
  const refused = await kv('txn', { input: 'mood("x") = "1"\n' })
  expect(refused.code).toBe(2)
  expect(refused.notes).toContain('mood("x")')
})

test('a watch begins at a time, and one that is none is refused', async () => {
  await kv('put s/1 a')
  await kv('put s/1 b')
  const all = await kv('watch s/ --prefix --since 1h --events 2')
  expect(all).toMatchObject({ code: 0, out: 'PUT\ns/1\na\nPUT\ns/1\nb\n' })
  // What came before is not told again once the member has noted the time.
  await until(async () => {
    const since = new Date().toISOString()
    await kv('put s/1 c')
    const { out } = await kv(`watch s/ --prefix --since ${since} --events 1`)
    return out === 'PUT\ns/1\nc\n'
  })
  expect((await kv('watch s/ --since yesterday')).notes).toContain('yesterday is not a duration')
  expect((await kv('watch s/ --since 2026-13-01T00:00:00Z')).notes).toContain('no date of any calendar')
  expect((await kv('watch s/ --since 1m --rev 3')).notes).toContain('--rev and --since')
})

test('a watch begins where it is told, ends after its events and runs a command for each', async () => {
  await kv('put w/1 one')
  const revision = JSON.parse((await kv('get w/1 --json')).out).kvs[0].mod_revision as string
  await kv('del w/1')
  const lines = await kv(`watch w/ --prefix --rev ${revision} --events 2 --prev-kv`)
  expect(lines.out).toBe('PUT\nw/1\none\nDELETE\nw/1\none\nw/1\n')
  const json = (await kv(`watch w/1 --rev ${revision} --events 1 --json`)).out
  expect(JSON.parse(json)).toMatchObject({
    events: [{ type: 'PUT', kv: { mod_revision: revision, value: 'b25l' } }],
  })
  const seen = join(folder, 'seen')
  await kv([
    'watch',
    'w/1',
    '--rev',
    revision,
    '--events',
    '1',
    '--exec',
    `printf %s "$ETCD_WATCH_VALUE" >${seen}`,
  ])
  expect((await kv(['put', 's'], { input: readFileSync(seen) })).code).toBe(0)
  expect((await kv('get s')).out).toBe('s\n"one"\n')
})

test('a lease is granted, listed, renewed and revoked, and then not found', async () => {
  const id = /lease (\S+) granted with TTL\(60s\)/.exec((await kv('lease grant 60')).out)![1]!
  await kv(`put leased v --lease ${id}`)
  expect((await kv('lease list')).out.split('\n')).toContain(id)
  expect((await kv(`lease timetolive ${id} --keys`)).out).toContain('attached keys([leased])')
  expect((await kv(`lease keep-alive --once ${id}`)).out).toBe(`lease ${id} keepalived with TTL(60)\n`)
  expect((await kv(`lease revoke ${id}`)).code).toBe(0)
  expect((await kv('get leased')).code).toBe(3)
  expect((await kv(`lease timetolive ${id}`)).code).toBe(3)
  expect((await kv(`lease keep-alive --once ${id}`)).code).toBe(3)
  expect((await kv(`lease revoke ${id}`)).code).toBe(3)
  expect((await kv('lease revoke nonsense')).code).toBe(2)
})

test('a lock is held while a command runs, whose exit code is ours, and by one at a time', async () => {
  expect((await kv(['lock', 'l', '--', '/bin/sh', '-c', 'test -n "$ETCD_LOCK_KEY" && exit 7'])).code).toBe(7)
  const end = new AbortController()
  const held = Promise.withResolvers<string>()
  const holder = kv('lock l', { signal: end.signal, onPrint: held.resolve })
  const key = (await held.promise).trim()
  expect((await kv(`get ${key} --keys-only`)).out).toBe(`${key}\n`)
  const endWaiter = new AbortController()
  let waiterGotIt = false
  const waiter = kv('lock l', { signal: endWaiter.signal, onPrint: () => (waiterGotIt = true) })
  await until(async () => (await kv('get l/ --prefix --count-only')).out === '2\n')
  expect(waiterGotIt).toBe(false)
  endWaiter.abort()
  await waiter
  end.abort()
  await holder
  expect((await kv('get l/ --prefix --count-only')).out).toBe('0\n')
})

test('a leader is elected and heard of', async () => {
  const end = new AbortController()
  const leads = Promise.withResolvers<void>()
  const leader = kv('elect e me', { signal: end.signal, onPrint: () => leads.resolve() })
  await leads.promise
  const heard = Promise.withResolvers<string>()
  const listener = kv('elect e --listen --json', { signal: end.signal, onPrint: heard.resolve })
  expect(JSON.parse(await heard.promise)).toMatchObject({ value: Buffer.from('me').toString('base64') })
  end.abort()
  expect((await leader).code).toBe(0)
  expect((await listener).code).toBe(0)
  expect((await kv('elect e')).code).toBe(2)
})

test('members are listed, added, updated, and removed', async () => {
  expect((await kv('member list')).out).toMatch(/^\S+, started, m1, http:\S+, http:\S+, false\n$/)
  expect((await kv('member list', { live: true })).out).toMatch(/^ID\s+STATUS\s+NAME/)
  const added = await kv('member add m2 --learner --peer-urls http://127.0.0.1:1')
  expect(added.out).toContain('ETCD_INITIAL_CLUSTER="m1=')
  expect(added.out).toContain(',m2=http://127.0.0.1:1"')
  const id = /Member (\S+) added/.exec(added.out)![1]!
  expect((await kv(`member update ${id} --peer-urls http://127.0.0.1:2`)).code).toBe(0)
  expect((await kv('member list')).out).toContain('unstarted, , http://127.0.0.1:2')
  expect((await kv(`member promote ${id}`)).code).toBe(4)
  expect((await kv(`member remove ${id}`)).out).toBe(`Member ${id} removed\n`)
  expect((await kv(`member remove ${id}`)).code).toBe(3)
  expect((await kv('move-leader 1')).code).not.toBe(0)
})

test('endpoints tell how they are, and one that is away makes it partial', async () => {
  expect((await kv('endpoint status', { live: true })).out).toMatch(/^ENDPOINT\s+ID\s+VERSION/)
  expect(JSON.parse((await kv('endpoint status --json')).out)).toMatchObject([
    { endpoint, status: { leader: expect.any(String) } },
  ])
  expect((await kv('endpoint health --cluster')).out).toMatch(/^http:\S+, true, [\d.]+ms, \n$/)
  expect(JSON.parse((await kv('endpoint hashkv --json')).out)).toMatchObject([
    { hashkv: { hash: expect.any(Number) } },
  ])
  const two = await kv([
    'endpoint',
    'health',
    '--endpoints',
    `${endpoint},http://127.0.0.1:1`,
    '--command-timeout',
    '500ms',
  ])
  expect(two.code).toBe(8)
  expect(two.out).toContain('http://127.0.0.1:1, false')
  const none = await kv('endpoint health --endpoints http://127.0.0.1:1 --command-timeout 300ms')
  expect(none.code).toBe(6)
  const shrunk = await kv('defrag')
  expect(shrunk.out).toContain('before')
  expect(shrunk.notes).toBe(`1/1 ${endpoint}\n`)
})

test('history is compacted, and what is gone is said to be', async () => {
  await kv('put c 1')
  await kv('put c 2')
  const revision = JSON.parse((await kv('get c --json')).out).header.revision as string
  expect((await kv(`compaction --physical ${revision}`)).out).toBe(`compacted revision ${revision}\n`)
  const gone = await kv('get c --rev 1')
  expect(gone.code).toBe(4)
  expect(gone.notes).toContain('STORE_COMPACTED')
  expect((await kv('watch c --rev 1')).code).toBe(4)
  expect((await kv('alarm list')).out).toBe('')
  expect((await kv('alarm disarm --json')).code).toBe(0)
})

test('users and roles, and what they may do once authentication is on', async () => {
  expect((await kv('user add root', { input: 'secret\n' })).out).toBe('User root created\n')
  expect((await kv('user add reader:r')).code).toBe(0)
  expect((await kv('user add certified --no-password')).code).toBe(0)
  expect((await kv('user add reader:r')).code).toBe(4)
  await kv('role add root')
  await kv('role add looks')
  expect((await kv('role grant-permission looks read c --prefix')).code).toBe(0)
  expect((await kv('role get looks')).out).toBe('read, c, d\n')
  await kv('user grant-role root root')
  await kv('user grant-role reader looks')
  expect((await kv('user get reader')).out).toBe('looks\n')
  expect((await kv('user get nobody')).code).toBe(3)
  expect((await kv('auth enable')).out).toBe('Authentication Enabled\n')
  try {
    expect((await kv('get c')).code).not.toBe(0)
    expect((await kv('get c --user reader:r')).out).toBe('c\n2\n')
    expect((await kv('get c --user reader', { input: 'r\n' })).out).toBe('c\n2\n')
    const byEnvironment = { environment: { ETCDCTL_USER: 'reader', ETCDCTL_PASSWORD: 'r' } }
    expect((await kv('get c', byEnvironment)).out).toBe('c\n2\n')
    const denied = await kv('put c 3 --user reader:r')
    expect(denied).toMatchObject({ code: 1, notes: expect.stringContaining('permission denied') })
    expect((await kv('get c --user reader:wrong')).code).not.toBe(0)
    expect((await kv('user passwd reader --user root:secret', { input: 'new' })).code).toBe(0)
    expect((await kv('get c --user reader:new')).code).toBe(0)
    expect((await kv('auth status --json --user root:secret')).out).toContain('"enabled":true')
  } finally {
    expect((await kv('auth disable --user root:secret')).code).toBe(0)
  }
  expect((await kv('user revoke-role reader looks')).code).toBe(0)
  expect((await kv('role revoke-permission looks c --prefix')).code).toBe(0)
  expect((await kv('role get looks')).out).toBe('')
  expect((await kv('role delete looks')).code).toBe(0)
  expect((await kv('user delete reader')).code).toBe(0)
  expect((await kv('user list')).out).toBe('certified\nroot\n')
  expect((await kv('role list')).out).toBe('root\n')
  expect((await kv('get c --user anyone:x')).code, 'a user is of no account where nobody is asked').toBe(0)
})

test('history is listed, compared and restored', async () => {
  const revisionOf = async (key: string): Promise<string> =>
    JSON.parse((await kv(`get ${key} --json`)).out).kvs[0].mod_revision
  await kv('put h/a 1')
  await kv('put h/b 1')
  const then = await revisionOf('h/b')
  await kv('put h/a 2')
  await kv('del h/b')
  await kv('put h/c 1')
  expect((await kv('history list h/b')).out).toMatch(/^\d+, DELETE, , \n\d+, PUT, 1, 1\n$/)
  expect((await kv('history list h/b', { live: true })).out).toMatch(/^REVISION\s+CHANGE/)
  expect((await kv('history list h/none')).code).toBe(3)
  expect((await kv('history list h/a --limit 1')).notes).toContain('--before')
  expect((await kv('history deleted h/')).out).toMatch(new RegExp(`^h/b, \\d+, ${then}\n$`))
  expect((await kv(`history diff h/ ${then}`)).out).toBe(
    'h/a, changed, 1, 2\nh/b, deleted, 1, \nh/c, added, , 1\n',
  )
  expect(JSON.parse((await kv(`history diff h/ ${then} --json`)).out).differences).toHaveLength(3)
  expect((await kv(`history restore h/ ${then} --max-changes 2`)).code).not.toBe(0)
  const restored = await kv(`history restore h/ ${then}`)
  expect(restored.out).toContain(`2 keys have their value of revision ${then} again, 1 are deleted`)
  expect((await kv('get h/ --prefix')).out).toBe('h/a\n1\nh/b\n1\n')
  expect((await kv('history diff h/ 1')).code).toBe(4)
})

test('every command has its help', async () => {
  for (const command of [
    'get',
    'txn',
    'watch',
    'lease grant',
    'lock',
    'endpoint status',
    'role grant-permission',
    'defrag',
  ]) {
    const help = await kv(`${command} --help`)
    expect(help.code, command).toBe(0)
    expect(help.out, command).toContain('--json')
    expect(help.out, command).toContain('--endpoints')
  }
})

/** Runs `kiln kv ...` in this process. */
async function kv(line: string | string[], options: RunOptions = {}): Promise<Ran> {
  const ran: Ran = { code: 0, out: '', notes: '' }
  const say = (text: string): void => {
    ran.out += text
    options.onPrint?.(text)
  }
  const program = new Command('kiln').exitOverride().configureOutput({
    writeOut: say,
    writeErr: (text) => {
      ran.notes += text
    },
  })
  const group = program.command('kv')
  addStoreCommands(group, {
    environment: {
      HOME: folder,
      PATH: process.env['PATH'],
      ETCDCTL_ENDPOINTS: endpoint,
      ...options.environment,
    },
    signal: options.signal ?? new AbortController().signal,
    live: options.live === true,
    print: (text) => say(`${text}\n`),
    note: (text) => {
      ran.notes += `${text}\n`
    },
    write: (bytes) => say(Buffer.from(bytes).toString('latin1')),
    input: Readable.from([Buffer.from(options.input ?? '')]),
    exit: (code) => {
      ran.code = code
    },
    fail: (fault) => {
      ran.code = exitCodeOf(fault)
    },
  })
  const words = typeof line === 'string' ? line.split(' ') : line
  try {
    await program.parseAsync(['kv', ...words], { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) ran.code = error.exitCode === 0 ? 0 : 2
    else if (error instanceof Fault) {
      ran.code = exitCodeOf(error)
      ran.notes += `${error.code}: ${error.message}\n`
    } else throw error
  }
  return ran
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await setTimeout(20)
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
