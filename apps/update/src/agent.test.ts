import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer as createSocketServer, type Server } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EtcdClient } from '@kiln/etcd-api'
import { createCa, issueCertificate } from '@kiln/pki'
import { MachineFacts, type MachineStatus } from '@kiln/schemas'
import { createLog, Fault } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { UpdateAgent } from './agent.ts'
import { Settings } from './settings.ts'

const servers: Server[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})

const now = new Date()
const ca = await createCa({ name: 'Kiln cluster CA', days: 10, now })
const boot = await issueCertificate(ca, {
  ...{ commonName: 'boot', names: ['127.0.0.1'], days: 5, now },
  use: ['server'],
})
const own = await issueCertificate(ca, { commonName: 'node1', names: [], use: ['client'], days: 5, now })

/** A store of one member in memory: what the agent uses of the client. */
function memoryStore() {
  const keys = new Map<string, string>()
  const store = {
    keys,
    leaderId: 1n,
    asClient: undefined as unknown as EtcdClient,
  }
  const entry = (key: string) => (keys.has(key) ? { key, text: keys.get(key)!, modRevision: 1n } : undefined)
  const client = {
    get: async (key: string) => {
      if (store.leaderId === 0n) throw new Fault('STORE_NO_LEADER', 'no leader')
      return entry(key)
    },
    getPrefix: async (prefix: string) => ({
      entries: [...keys.keys()].filter((key) => key.startsWith(prefix)).map((key) => entry(key)!),
    }),
    compareAndSwap: async (key: string, { value }: { value: string }) => {
      keys.set(key, value)
      return { swapped: true }
    },
    createIfMissing: async (key: string, value: string) => {
      if (keys.has(key)) return { created: false }
      keys.set(key, value)
      return { created: true }
    },
    compareAndDelete: async (key: string) => ({ deleted: keys.delete(key) }),
    memberList: async () =>
      [1n, 2n].map((id) => ({
        id,
        name: `node${id}`,
        isLearner: false,
        clientUrls: [`https://10.77.0.1${id}:2379`],
      })),
    status: async () => ({ memberId: 1n, leaderId: store.leaderId, raftIndex: 5n, raftAppliedIndex: 5n }),
    moveLeader: async (_endpoint: string, target: bigint) => {
      store.leaderId = target
    },
  }
  store.asClient = client as unknown as EtcdClient
  return store
}

/** A machine in a folder, on trial in generation 2 unless said otherwise, and a boot server without a channel. */
async function machine(options: {
  entry: string
  kernel: string
  state?: object
  settings?: object
  elapsedMs?: () => number
}) {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-agent-'))
  for (const one of ['esp/loader/entries', 'state', 'run']) mkdirSync(join(folder, one), { recursive: true })
  writeFileSync(join(folder, 'esp/loader/entries/kiln-1-0.1.0.conf'), '')
  writeFileSync(join(folder, 'esp/loader/entries', options.entry), '')
  writeFileSync(join(folder, 'cmdline'), options.kernel)
  writeFileSync(join(folder, 'boot-id'), 'boot-2\n')
  writeFileSync(join(folder, 'uptime'), '12.5 1')
  if (options.state) writeFileSync(join(folder, 'state/state.json'), JSON.stringify(options.state))
  const reports: string[] = []
  const asked: string[] = []
  const answers: { channel?: string; report?: number } = {}
  const tls = { ca: ca.certificate, cert: boot.certificate, key: boot.key }
  const server = createServer({ ...tls, requestCert: true }, (request, response) => {
    request.on('data', (body: Buffer) => reports.push(body.toString()))
    request.on('end', () => {
      asked.push(`${request.method} ${request.url}`)
      if (request.method !== 'GET') return response.writeHead(answers.report ?? 204).end()
      const found = request.url?.startsWith('/v1/channels/') ? answers.channel : undefined
      response.writeHead(found === undefined ? 404 : 200).end(found)
    })
  }).listen(0, '127.0.0.1')
  servers.push(server)
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  const store = memoryStore()
  const published: MachineStatus['state'][] = []
  const agent = await UpdateAgent.open({
    settings: Settings.parse({
      espDir: join(folder, 'esp'),
      stateDir: join(folder, 'state'),
      runDir: join(folder, 'run'),
      kernelArgumentsFile: join(folder, 'cmdline'),
      bootIdFile: join(folder, 'boot-id'),
      uptimeFile: join(folder, 'uptime'),
      consoleFile: join(folder, 'console'),
      healthUnits: '',
      runtimeSocket: '',
      rebootCommand: 'true',
      ...options.settings,
    }),
    facts: MachineFacts.parse({
      formatVersion: 1,
      id: 'node1',
      name: 'node1',
      group: 'default',
      role: 'store',
      address: '10.77.0.11',
      bootUrl: 'http://127.0.0.1:1',
      bootTlsUrl: `https://127.0.0.1:${port}`,
      storeEndpoints: ['https://10.77.0.11:2379'],
    }),
    tls: () => ({ ca: ca.certificate, cert: own.certificate, key: own.key }),
    store: store.asClient,
    publish: (status) => published.push(status.state),
    nowMs: () => Date.parse('2026-01-01T12:00:00Z'),
    elapsedMs: options.elapsedMs ?? (() => 0),
    sleep: async () => undefined,
    log: createLog('test', 'silent'),
  })
  const entries = (): string[] => readdirSync(join(folder, 'esp/loader/entries')).sort()
  return { agent, store, published, reports, asked, answers, entries, folder }
}

const turn = JSON.stringify({
  formatVersion: 1,
  machine: 'node1',
  version: '0.2.0',
  generation: 2,
  grantedAt: '2026-01-01T11:50:00Z',
  deadlineAt: '2026-01-01T12:20:00Z',
})
const attempted = {
  formatVersion: 1,
  generationMax: 2,
  staged: { version: '0.2.0', generation: 2, slot: 'b' },
  attempt: { version: '0.2.0', generation: 2, bootId: 'boot-1' },
  failures: [],
}
const newSlot = 'kiln.slot=b kiln.generation=2 kiln.version=0.2.0'
const oldSlot = 'kiln.slot=a kiln.generation=1 kiln.version=0.1.0'

test('a trial boot is blessed after two green looks, then gives its turn back and finishes the rollout', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0+1-1.conf', kernel: newSlot, state: attempted })
  one.store.keys.set('/kiln/reboots/default/0', turn)
  one.store.keys.set('/kiln/rollouts/default/0.2.0', '{"formatVersion":1,"state":"rolling"}')
  expect(await one.agent.step()).toBe(false)
  expect(one.entries()).toContain('kiln-2-0.2.0+1-1.conf')
  await one.agent.step()
  expect(one.entries()).toEqual(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0.conf'])
  await one.agent.step()
  expect(one.store.keys.has('/kiln/reboots/default/0')).toBe(false)
  expect(one.store.keys.get('/kiln/rollouts/default/0.2.0')).toContain('done')
  expect(readFileSync(join(one.folder, 'console'), 'utf8')).toMatch(
    /^MARK:ready uptime=12.50 version=0.2.0 slot=b/,
  )
})

test('a boot that came back in the old slot halts the rollout with its reason and gives the turn back', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0+0-2.conf', kernel: oldSlot, state: attempted })
  const note = { bootId: 'b3', problems: ['kiln-runtime.service is failed (failed)'], settling: false }
  writeFileSync(join(one.folder, 'state/gate-2.json'), JSON.stringify(note))
  writeFileSync(join(one.folder, 'state/deadline-2'), 'b3\n')
  one.store.keys.set('/kiln/reboots/default/0', turn)
  for (let looks = 0; looks < 5; looks++) await one.agent.step()
  const rollout = JSON.parse(one.store.keys.get('/kiln/rollouts/default/0.2.0')!)
  expect(rollout).toMatchObject({ state: 'halted', machine: 'node1' })
  expect(rollout.reason).toContain('health gate stayed red until the deadline in 2 boots: kiln-runtime')
  const halt = JSON.parse(one.reports.find((report) => report.includes('"reason"'))!)
  expect(halt).toEqual({ version: '0.2.0', reason: rollout.reason })
  expect(one.store.keys.has('/kiln/reboots/default/0')).toBe(false)
})

test('the record follows the health of the machine in both directions', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0.conf', kernel: newSlot })
  for (let looks = 0; looks < 3; looks++) await one.agent.step()
  one.store.leaderId = 0n
  await one.agent.step()
  one.store.leaderId = 1n
  for (let looks = 0; looks < 3; looks++) await one.agent.step()
  expect(one.published).toEqual(['degraded', 'ready', 'degraded', 'ready'])
  expect(one.reports.filter((report) => report.includes('"ready"'))).toHaveLength(1)
})

const stagedState = {
  formatVersion: 1,
  generationMax: 2,
  staged: { version: '0.2.0', generation: 2, slot: 'b' },
  failures: [],
}

test('a staged release becomes bootable only when the machine has the turn and reboots', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0+2.conf.staged', kernel: oldSlot, state: stagedState })
  await one.agent.step()
  expect(one.entries()).toEqual(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+2.conf.staged'])
  one.store.keys.set('/kiln/reboots/default/0', turn)
  await one.agent.step()
  await one.agent.step()
  expect(one.entries()).toEqual(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+2.conf'])
  expect(readFileSync(join(one.folder, 'state/state.json'), 'utf8')).toContain('"attempt"')
})

test('a turn that is given back takes the boot entry back with it', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0+2.conf', kernel: oldSlot, state: stagedState })
  one.store.keys.set('/kiln/reboots/default/0', turn)
  one.store.keys.set('/kiln/rollouts/default/0.1.0', '{"formatVersion":1,"state":"halted"}')
  for (let looks = 0; looks < 3; looks++) await one.agent.step()
  expect(one.store.keys.has('/kiln/reboots/default/0')).toBe(false)
  expect(one.entries()).toEqual(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+2.conf.staged'])
})

test('records of others that cannot be read keep neither the blessing nor the turn', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0+1-1.conf', kernel: newSlot, state: attempted })
  one.store.keys.set('/kiln/reboots/default/0', turn)
  one.store.keys.set('/kiln/machines/node9', '{"formatVersion":2}')
  one.store.keys.set('/kiln/rollouts/default/0.2.0', 'nonsense')
  for (let looks = 0; looks < 4; looks++) await one.agent.step()
  expect(one.entries()).toEqual(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0.conf'])
  expect(one.store.keys.has('/kiln/reboots/default/0')).toBe(false)
})

test('a boot server that was away is told of the ready machine until it takes it, and then no more', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0.conf', kernel: newSlot })
  one.answers.report = 503
  for (let looks = 0; looks < 3; looks++) await one.agent.step()
  delete one.answers.report
  for (let looks = 0; looks < 3; looks++) await one.agent.step()
  expect(one.reports.filter((report) => report.includes('"ready"'))).toHaveLength(3)
})

test('an install that fails pauses before it is tried again', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0.conf', kernel: newSlot })
  one.answers.channel = JSON.stringify({ version: '0.3.0', manifestUrl: '/manifest.json', state: 'rolling' })
  await expect(one.agent.step()).rejects.toMatchObject({ code: 'BOOT_SERVER_ANSWER' })
  for (let looks = 0; looks < 5; looks++) await one.agent.step()
  expect(one.asked.filter((line) => line === 'GET /manifest.json')).toHaveLength(1)
})

test('what the gate of a boot on trial saw is noted, and a gate that only settles is no problem', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0+1-1.conf', kernel: newSlot, state: attempted })
  const note = (): object => JSON.parse(readFileSync(join(one.folder, 'state/gate-2.json'), 'utf8'))
  one.store.leaderId = 0n
  await one.agent.step()
  expect(note()).toEqual({ bootId: 'boot-2', problems: ['the store member sees no leader'], settling: false })
  one.store.leaderId = 1n
  await one.agent.step()
  expect(note()).toEqual({ bootId: 'boot-2', problems: [], settling: true })
  await one.agent.step()
  expect(readdirSync(join(one.folder, 'state'))).not.toContain('gate-2.json')
})

/** A kiln-runtime whose pod needs so many looks to end. */
async function runtime(looks: number) {
  const socket = join(mkdtempSync(join(tmpdir(), 'kiln-runtime-')), 'runtime.sock')
  const asked: string[] = []
  const server = createSocketServer((request, response) => {
    request.resume()
    request.on('end', () => {
      asked.push(`${request.method} ${request.url}`)
      const drains = asked.filter((line) => line === 'POST /v1/drain').length
      response.end(
        request.url === '/v1/pods' ? '[]' : JSON.stringify({ running: drains < looks ? ['web'] : [] }),
      )
    })
  }).listen(socket)
  servers.push(server)
  await new Promise((resolve) => server.once('listening', resolve))
  return { socket, asked: () => asked.filter((line) => line.startsWith('POST')) }
}

test('before the reboot the machine is draining, another member leads, services and pods are gone', async () => {
  const pods = await runtime(3)
  const one = await machine({
    ...{ entry: 'kiln-2-0.2.0+2.conf.staged', kernel: oldSlot, state: stagedState },
    settings: { runtimeSocket: pods.socket },
  })
  for (let looks = 0; looks < 2; looks++) await one.agent.step()
  one.store.keys.set('/kiln/reboots/default/0', turn)
  await one.agent.step()
  expect(one.published.at(-1)).toBe('draining')
  expect(one.store.leaderId).toBe(2n)
  expect(pods.asked()).toEqual(Array(3).fill('POST /v1/drain'))
  expect(one.entries()).toContain('kiln-2-0.2.0+2.conf.staged')
})

test('a reboot that does not happen gives the pods back and is tried again later', async () => {
  const pods = await runtime(1)
  let elapsedMs = 0
  const one = await machine({
    ...{ entry: 'kiln-2-0.2.0+2.conf.staged', kernel: oldSlot, state: stagedState },
    settings: { runtimeSocket: pods.socket, rebootCommand: 'exit 3' },
    elapsedMs: () => elapsedMs,
  })
  one.store.keys.set('/kiln/reboots/default/0', turn)
  await one.agent.step()
  await expect(one.agent.step()).rejects.toThrow(/exit 3/)
  expect(pods.asked()).toEqual(['POST /v1/drain', 'POST /v1/resume'])
  for (let looks = 0; looks < 3; looks++) await one.agent.step()
  expect(pods.asked()).toHaveLength(2)
  expect(one.published.at(-1)).toBe('ready')
  elapsedMs = 6 * 60_000
  await one.agent.step()
  expect(pods.asked()).toHaveLength(3)
})

test('a drain ends when something else comes up than the reboot, or the wait gets long', async () => {
  const drained = async () => {
    const pods = await runtime(1)
    const at = { elapsedMs: 0 }
    const one = await machine({
      ...{ entry: 'kiln-2-0.2.0+2.conf.staged', kernel: oldSlot, state: stagedState },
      settings: { runtimeSocket: pods.socket },
      elapsedMs: () => at.elapsedMs,
    })
    one.store.keys.set('/kiln/reboots/default/0', turn)
    await one.agent.step()
    return { one, pods, at }
  }
  const halted = await drained()
  halted.one.store.keys.set('/kiln/rollouts/default/0.1.0', '{"formatVersion":1,"state":"halted"}')
  await halted.one.agent.step()
  expect(halted.pods.asked()).toEqual(['POST /v1/drain', 'POST /v1/resume'])

  const cutOff = await drained()
  cutOff.one.store.leaderId = 0n
  await cutOff.one.agent.step()
  expect(cutOff.pods.asked()).toEqual(['POST /v1/drain'])
  cutOff.at.elapsedMs = 3 * 60_000
  await cutOff.one.agent.step()
  expect(cutOff.pods.asked()).toEqual(['POST /v1/drain', 'POST /v1/resume'])
})
