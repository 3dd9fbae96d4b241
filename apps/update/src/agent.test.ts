import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EtcdClient } from '@kiln/etcd-api'
import { MachineFacts, type MachineStatus } from '@kiln/schemas'
import { createLog, Fault } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { UpdateAgent } from './agent.ts'
import { Settings } from './settings.ts'

const servers: Server[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})

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
    put: async (key: string, value: string) => void keys.set(key, value),
    createIfMissing: async (key: string, value: string) => {
      if (keys.has(key)) return { created: false }
      keys.set(key, value)
      return { created: true }
    },
    compareAndDelete: async (key: string) => ({ deleted: keys.delete(key) }),
    memberList: async () => [{ name: 'node1', isLearner: false, clientUrls: ['https://10.77.0.11:2379'] }],
    status: async () => ({ leaderId: store.leaderId, raftIndex: 5n, raftAppliedIndex: 5n }),
  }
  store.asClient = client as unknown as EtcdClient
  return store
}

/** A machine in a folder, on trial in generation 2 unless said otherwise, and a boot server without a channel. */
async function machine(options: { entry: string; kernel: string; state?: object }) {
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
  const server = createServer((request, response) => {
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
    }),
    facts: MachineFacts.parse({
      formatVersion: 1,
      id: 'node1',
      name: 'node1',
      group: 'default',
      role: 'store',
      address: '10.77.0.11',
      bootUrl: `http://127.0.0.1:${port}`,
      bootTlsUrl: `https://127.0.0.1:${port}`,
      storeEndpoints: ['https://10.77.0.11:2379'],
    }),
    pki: { ca: '', cert: '', key: '' },
    store: store.asClient,
    publish: (status) => published.push(status.state),
    nowMs: () => Date.parse('2026-01-01T12:00:00Z'),
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
  writeFileSync(join(one.folder, 'state/gate-2.txt'), 'kiln-runtime.service is failed (failed)\n')
  one.store.keys.set('/kiln/reboots/default/0', turn)
  for (let looks = 0; looks < 5; looks++) await one.agent.step()
  const rollout = JSON.parse(one.store.keys.get('/kiln/rollouts/default/0.2.0')!)
  expect(rollout).toMatchObject({ state: 'halted', machine: 'node1' })
  expect(rollout.reason).toContain('kiln-runtime.service is failed')
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

test('a downgrade that only the plain channel asks for is not begun', async () => {
  const one = await machine({ entry: 'kiln-2-0.2.0.conf', kernel: newSlot })
  const channel = { version: '0.1.5', manifestUrl: '/x', state: 'rolling', allowDowngrade: true }
  one.answers.channel = JSON.stringify(channel)
  for (let looks = 0; looks < 3; looks++) await one.agent.step()
  const seen = JSON.parse(readFileSync(join(one.folder, 'run/update.json'), 'utf8'))
  expect(seen.action.kind).toBe('wait')
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
