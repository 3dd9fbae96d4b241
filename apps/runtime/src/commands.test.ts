import { mkdtempSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { PodStatus } from '@kiln/schemas'
import { createLog, Fault } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { type RuntimeApi, serveApi } from './api.ts'
import { runCommand } from './commands.ts'
import type { PodEntry } from './life/pod-entry.ts'

const folder = mkdtempSync(join(tmpdir(), 'kiln-commands-'))
const socket = join(folder, 'runtime.sock')
const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

const pod: PodStatus = {
  formatVersion: 1,
  name: 'hello',
  machine: 'node1',
  uid: 'u1',
  phase: 'Running',
  ready: true,
  source: 'file',
  address: '10.88.11.2',
  service: 'web',
  ports: [{ port: 80, hostPort: 8000, protocol: 'TCP' }],
  containers: [{ name: 'main', state: 'running', restarts: 2, image: 'oci:/x' }],
  since: '2026-01-01T00:00:00.000Z',
}

const entry: PodEntry = {
  uuid: 'u1',
  name: 'hello',
  state: 'running',
  source: 'file',
  supervised: true,
  once: false,
  createdAt: pod.since,
  ready: true,
  addresses: ['10.88.11.2'],
  networks: ['built-in'],
  apps: [{ name: 'main', image: 'oci:/x', state: 'running', pid: 7 }],
}

function found(id: string): PodEntry {
  if (id !== 'hello' && !'u1'.startsWith(id)) throw new Fault('POD_NOT_FOUND', `there is no pod ${id}`)
  return entry
}

/** A daemon that notes what it is asked. */
async function serve(change: Partial<RuntimeApi> = {}): Promise<string[]> {
  const asked: string[] = []
  const unexpected = (): never => {
    throw new Error('not asked in this test')
  }
  const api: RuntimeApi = {
    list: () => [pod],
    run: async (manifest) => {
      asked.push(`run ${manifest.metadata.name}`)
      return pod
    },
    stop: async (name, grace) => {
      asked.push(`stop ${name} ${grace}`)
      return { ...pod, phase: 'Stopped', ready: false }
    },
    start: unexpected,
    drain: unexpected,
    statistics: unexpected,
    resume: unexpected,
    remove: (name) => {
      asked.push(`remove ${name}`)
    },
    planExec: unexpected,
    logs: unexpected,
    life: { list: () => [entry], find: (id: string) => found(id) } as unknown as RuntimeApi['life'],
    events: {} as RuntimeApi['events'],
    images: {} as RuntimeApi['images'],
    networks: {} as RuntimeApi['networks'],
    info: () => ({ machine: 'node1', runsPods: true }),
    ...change,
  }
  const server = await serveApi({ socket, api, log: createLog('test', 'silent') })
  closers.push(() => server.close())
  return asked
}

async function run(...argv: string[]): Promise<{ code: number; out: string[]; err: string[] }> {
  const out: string[] = []
  const err: string[] = []
  const code = await runCommand(argv, {
    socket,
    print: (line) => out.push(line),
    complain: (line) => err.push(line),
  })
  return { code, out, err }
}

test('pods are listed as a table, shown with their containers, and given as JSON', async () => {
  await serve()
  expect(statSync(socket).mode & 0o777).toBe(0o600)
  expect((await run('list')).out).toEqual([
    'UUID  POD    STATE    PHASE    READY  RESTARTS  ADDRESS     SOURCE  REASON',
    'u1    hello  running  Running  1/1    2         10.88.11.2  file',
  ])
  expect((await run('list', '--full', '--no-legend')).out).toEqual([
    expect.stringMatching(
      /^u1 +hello +main +oci:\/x +running +2026-01-01T00:00:00.000Z +built-in,ip=10.88.11.2$/,
    ),
  ])
  expect((await run('status', 'u1')).out).toEqual([
    'state=running',
    'created=2026-01-01T00:00:00.000Z',
    'pid=7',
    'networks=built-in,ip=10.88.11.2',
  ])
  expect((await run('status', 'hello')).out).toEqual([
    'hello: Running, ready, 10.88.11.2',
    '  service web, ports 8000->80/TCP, from file',
    '  main: running, 2 restarts',
  ])
  expect(JSON.parse((await run('list', '--json')).out.join('\n'))).toEqual([pod])
})

test('pods are run from a file, stopped with a grace of choice, and removed', async () => {
  const asked = await serve()
  const file = join(folder, 'pod.yaml')
  writeFileSync(
    file,
    'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: "oci:/x"}]}\n',
  )
  expect((await run('apply', file)).code).toBe(0)
  expect((await run('stop', 'hello', '--grace', '3')).out[0]).toBe('hello: Stopped, 10.88.11.2')
  expect((await run('rm', 'hello')).code).toBe(0)
  expect(asked).toEqual(['run x', 'stop hello 3', 'remove hello'])
})

test('every way to fail has its exit code and says why', async () => {
  expect(await run('list')).toMatchObject({ code: 6, err: [expect.stringContaining('RUNTIME_UNREACHABLE')] })
  await serve({
    run: () => Promise.reject(new Fault('RUNTIME_NEEDS_CGROUP_V2', 'no cgroup v2 here')),
    start: () => Promise.reject(new Error('bug')),
  })
  expect(await run('status', 'nope')).toMatchObject({
    code: 3,
    err: [expect.stringContaining('POD_NOT_FOUND')],
  })
  expect((await run('apply', join(folder, 'nope.yaml'))).code).toBe(3)
  const bad = join(folder, 'bad.yaml')
  writeFileSync(bad, 'kind: Pod\n')
  expect(await run('apply', bad)).toMatchObject({ code: 7, err: [expect.stringContaining('POD_INVALID')] })
  const file = join(folder, 'pod.yaml')
  writeFileSync(
    file,
    'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: "oci:/x"}]}\n',
  )
  expect(await run('apply', file)).toMatchObject({
    code: 4,
    err: ['kiln-runtime: RUNTIME_NEEDS_CGROUP_V2: no cgroup v2 here'],
  })
  expect((await run('start', 'hello')).code).toBe(1)
  expect((await run('stop', 'hello', '--grace', 'soon')).code).toBe(2)
  expect((await run('bogus')).code).toBe(2)
  expect((await run('--help')).code).toBe(0)
})

test('a second daemon on one socket is refused, and the socket of a dead one is taken over', async () => {
  await serve()
  await expect(serve()).rejects.toMatchObject({ code: 'RUNTIME_ALREADY_RUNS' })
  for (const close of closers.splice(0)) await close()
  writeFileSync(socket, '')
  await serve()
  expect((await run('list')).code).toBe(0)
})

test('a machine is drained and resumed over the socket, with the times that were asked for', async () => {
  const seen: unknown[] = []
  await serve({
    drain: async (wanted) => {
      seen.push(wanted)
      return ['hello']
    },
    resume: async () => void seen.push('resume'),
  })
  const post = (path: string, body?: object): Promise<{ status: number; text: string }> =>
    new Promise((resolve, reject) => {
      const call = request({ socketPath: socket, path, method: 'POST' }, (response) => {
        let text = ''
        response.on('data', (chunk) => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      })
      call.on('error', reject)
      call.end(body && JSON.stringify(body))
    })
  const times = { graceSeconds: 60, forSeconds: 240 }
  expect(await post('/v1/drain', times)).toEqual({ status: 200, text: '{"running":["hello"]}' })
  expect((await post('/v1/drain', { graceSeconds: 60 })).status).toBe(400)
  expect((await post('/v1/resume')).status).toBe(200)
  expect(seen).toEqual([times, 'resume'])
})

test('networks are listed with the files that are wrong, and what cannot be undone is told', async () => {
  const left = [{ pod: 'gone', network: 'lan', message: 'CNI_PLUGIN_MISSING: there is no plug-in x' }]
  await serve({
    networks: {
      list: async () => ({
        networks: [{ name: 'bridge', cniVersion: '1.0.0', plugins: ['bridge', 'portmap'] }],
        problems: [{ file: '/etc/kiln/cni/net.d/a.conf', message: 'is not JSON' }],
      }),
      collect: async () => left.splice(0),
    },
  })
  const listed = await run('network', 'list')
  expect(listed.out).toEqual(['NETWORK  CNI    PLUG-INS', 'bridge   1.0.0  bridge portmap'])
  expect(listed).toMatchObject({ code: 8, err: ['/etc/kiln/cni/net.d/a.conf is not JSON'] })
  expect(await run('network', 'gc')).toMatchObject({
    code: 8,
    err: ['lan of pod gone: CNI_PLUGIN_MISSING: there is no plug-in x'],
  })
  expect(await run('network', 'gc')).toMatchObject({ code: 0, err: [] })
})
