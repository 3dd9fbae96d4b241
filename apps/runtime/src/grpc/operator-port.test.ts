import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCa, issueCertificate, type KeyPair } from '@kiln/pki'
import { RuntimeClient } from '@kiln/runtime-api'
import { createLog, Fault, systemClock } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import type { RuntimeApi } from '../api.ts'
import { openOperatorPort } from './runtime-service.ts'

const closers: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

const folder = (): string => {
  const path = mkdtempSync(join(tmpdir(), 'kiln-operator-'))
  closers.push(() => rmSync(path, { recursive: true }))
  return path
}

/** The authority of a cluster, and what it signs. */
async function authority() {
  const now = new Date()
  const ca = await createCa({ name: 'cluster', days: 1, now })
  const of = (commonName: string): Promise<KeyPair> =>
    issueCertificate(ca, { commonName, names: ['127.0.0.1'], use: ['server', 'client'], days: 1, now })
  const write = (at: string, { certificate, key }: KeyPair): void => {
    writeFileSync(join(at, 'ca.pem'), ca.certificate)
    writeFileSync(join(at, 'machine.key'), key)
    writeFileSync(join(at, 'machine.pem'), certificate)
  }
  return { ca, of, write }
}

/** A machine with one pod, whose programs are a script of ours. */
function api(at: string, script: string): RuntimeApi {
  const initPath = join(at, 'init')
  writeFileSync(initPath, `#!/bin/sh\n${script}\n`)
  chmodSync(initPath, 0o755)
  const log = join(at, 'log')
  writeFileSync(log, ['one', 'two'].map((line) => `2026-01-01T00:00:00Z stdout F ${line}\n`).join(''))
  const entry = { uuid: 'u-1', name: 'hello', supervised: true, apps: [] }
  const find = (id: string) => {
    if (id !== 'hello') throw new Fault('POD_NOT_FOUND', `there is no pod ${id}`)
    return entry
  }
  return {
    list: () => [],
    planExec: async () => ({ planFile: join(at, 'plan'), initPath }),
    statistics: async () => [
      {
        container: 'web',
        statistics: { cpuMicroseconds: 5, memoryBytes: 6, memoryPeakBytes: undefined, pids: 7, oomKills: 0 },
        memoryLimitBytes: 8,
      },
    ],
    life: {
      list: () => [entry],
      find,
      logs: () => ({ journal: false, files: [log], containers: ['web'] }),
    },
    events: {
      list: () => [
        {
          formatVersion: 1,
          sequence: 3,
          at: 'then',
          pod: 'hello',
          uuid: 'u-1',
          reason: 'Started',
          warning: false,
          message: 'm',
        },
      ],
      follow: () => () => undefined,
    },
  } as unknown as RuntimeApi
}

const listen = (pkiDir: string, served: RuntimeApi, log = createLog('test', 'silent')): Promise<number> =>
  new Promise((resolve) => {
    // Time is of no interest: what waits is due at once.
    const clock = {
      ...systemClock,
      after: (ms: number, work: () => void) => systemClock.after(Math.min(ms, 20), work),
    }
    const opened = openOperatorPort({ port: 0, pkiDir, clock, api: served, log, onListening: resolve })
    closers.push(opened.close)
  })

const signal = new AbortController().signal

test('the operator asks a machine from afar: logs, events, use, and a program with input and code', async () => {
  const at = folder()
  const { ca, of, write } = await authority()
  write(at, await of('node1'))
  const port = await listen(at, api(at, 'read line; echo "got $line"; echo bad >&2; exit 6'))
  const admin = await of('admin')
  const client = new RuntimeClient({
    host: '127.0.0.1',
    port,
    tls: { ca: ca.certificate, cert: admin.certificate, key: admin.key },
  })
  closers.push(() => client.close())
  const lines: string[] = []
  await client.logs({ pod: 'hello', follow: false }, (line) => lines.push(line), signal)
  expect(lines).toEqual(['one', 'two'])
  const reasons: string[] = []
  await client.events(
    { follow: false },
    ({ reason, sequence }) => reasons.push(`${sequence} ${reason}`),
    signal,
  )
  expect(reasons).toEqual(['3 Started'])
  expect(await client.stats(undefined, 5_000)).toMatchObject([
    {
      pod: 'hello',
      container: 'web',
      cpuMicroseconds: 5n,
      memoryBytes: 6n,
      memoryLimitBytes: 8n,
      processes: 7,
    },
  ])
  const heard: string[] = []
  const code = await client.exec(
    { pod: 'hello', args: ['x'] },
    {
      input: (async function* () {
        yield Buffer.from('ping\n')
      })(),
      output: (bytes) => heard.push(`out ${Buffer.from(bytes)}`),
      errorOutput: (bytes) => heard.push(`err ${Buffer.from(bytes)}`),
    },
    signal,
  )
  expect(code).toBe(6)
  expect(heard.sort()).toEqual(['err bad\n', 'out got ping\n'])
  await expect(client.logs({ pod: 'nope', follow: false }, () => undefined, signal)).rejects.toMatchObject({
    code: 'POD_NOT_FOUND',
  })
  const given = new AbortController()
  setTimeout(() => given.abort(), 100)
  const idle = { input: (async function* () {})(), output: () => undefined, errorOutput: () => undefined }
  writeFileSync(join(at, 'init'), '#!/bin/sh\nexec sleep 60\n')
  expect(await client.exec({ pod: 'hello', args: ['x'] }, idle, given.signal)).toBe(130)
  // Rows and columns of another size, as the kernel wants them.
  writeFileSync(join(at, 'init'), '#!/bin/sh\nexec head -c 8 <&3\n')
  const sizes: Buffer[] = []
  const resized = await client.exec(
    { pod: 'hello', args: ['x'], terminal: { rows: 1, columns: 2 } },
    {
      ...idle,
      input: (async function* () {
        await new Promise((resolve) => setTimeout(resolve, 1_000))
        yield Buffer.of()
      })(),
      output: (bytes) => sizes.push(Buffer.from(bytes)),
      followSize: (changed) => {
        setTimeout(() => changed({ rows: 258, columns: 3 }), 50)
        return () => sizes.push(Buffer.from('followed'))
      },
    },
    signal,
  )
  expect([resized, Buffer.concat(sizes)]).toEqual([0, Buffer.from('\x02\x01\x03\0\0\0\0\0followed')])
  const following = new AbortController()
  setTimeout(() => following.abort(), 200)
  await client.events({ follow: true }, () => undefined, following.signal)
})

test('no machine, no stranger and nobody without a certificate is served, and the machine’s own may come later', async () => {
  const at = folder()
  const { ca, of, write } = await authority()
  const stranger = await authority()
  const listening = listen(at, api(at, 'exit 0'))
  await new Promise((resolve) => setTimeout(resolve, 100))
  write(at, await of('node1'))
  const port = await listening
  const asked = async (pair: KeyPair | undefined): Promise<unknown> => {
    const own = pair === undefined ? {} : { cert: pair.certificate, key: pair.key }
    const client = new RuntimeClient({ host: '127.0.0.1', port, tls: { ca: ca.certificate, ...own } })
    closers.push(() => client.close())
    return await client.stats(undefined, 3_000)
  }
  for (const pair of [undefined, await of('node2'), await stranger.of('admin')])
    await expect(asked(pair)).rejects.toMatchObject({ code: 'RUNTIME_UNREACHABLE' })
  expect(await asked(await of('admin'))).toHaveLength(1)
})

test('a machine that does not answer is said to be unreachable, also by a stream', async () => {
  const client = new RuntimeClient({ host: '127.0.0.1', port: 1, tls: {} })
  closers.push(() => client.close())
  await expect(client.logs({ pod: 'a', follow: true }, () => undefined, signal)).rejects.toMatchObject({
    code: 'RUNTIME_UNREACHABLE',
  })
})
