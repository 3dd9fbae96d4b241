import { mkdtempSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EtcdClient } from '@kiln/etcd-api'
import { MachineFacts } from '@kiln/schemas'
import { createLog } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { drainMachine, undrainMachine } from './drain.ts'

const servers: Server[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})

type Store = { leaderId: bigint; settlesAtMs: number; voters: bigint[]; moves?: 'refused' }

/** Machine node1, member 1 of a store, with pods that run until so many milliseconds have passed. */
async function machine(given: Partial<Store> & { podsEndAtMs?: number; role?: 'worker'; runtime?: boolean }) {
  const at = { elapsedMs: 0, moved: [] as bigint[], asked: [] as object[] }
  const store: Store = { leaderId: 1n, settlesAtMs: 0, voters: [1n, 2n, 3n], ...given }
  const endpoint = (id: bigint): string => `https://10.77.0.1${id}:2379`
  const client = {
    memberList: async () => [
      { id: 9n, name: 'learner', isLearner: true, clientUrls: [] },
      ...store.voters.map((id) => ({ id, name: `node${id}`, isLearner: false, clientUrls: [endpoint(id)] })),
    ],
    status: async (url: string) => ({
      memberId: BigInt(url.at(-6)!),
      leaderId: at.elapsedMs < store.settlesAtMs && url === endpoint(3n) ? 0n : store.leaderId,
      raftIndex: 5n,
      raftAppliedIndex: 5n,
    }),
    moveLeader: async (_url: string, target: bigint) => {
      if (store.moves === 'refused') throw new Error('no')
      at.moved.push(target)
      store.leaderId = target
    },
  }
  const runtimeSocket = join(mkdtempSync(join(tmpdir(), 'kiln-drain-')), 'runtime.sock')
  if (given.runtime !== false) {
    const server = createServer((request, response) => {
      let body = ''
      request.on('data', (chunk) => {
        body += chunk
      })
      request.on('end', () => {
        at.asked.push({ path: request.url, ...(body ? JSON.parse(body) : {}) })
        response.end(JSON.stringify({ running: at.elapsedMs < (given.podsEndAtMs ?? 0) ? ['web'] : [] }))
      })
    }).listen(runtimeSocket)
    servers.push(server)
    await new Promise((resolve) => server.once('listening', resolve))
  }
  const ports = {
    facts: MachineFacts.parse({
      formatVersion: 1,
      id: 'node1',
      name: 'node1',
      group: 'default',
      role: given.role ?? 'store',
      address: '10.77.0.11',
      bootUrl: 'http://10.0.2.2:8080',
      bootTlsUrl: 'https://10.0.2.2:8443',
      storeEndpoints: store.voters.map(endpoint),
    }),
    store: client as unknown as EtcdClient,
    runtimeSocket,
    drainSeconds: 10,
    elapsedMs: () => at.elapsedMs,
    sleep: async (ms: number) => {
      at.elapsedMs += ms
    },
    log: createLog('test', 'silent'),
  }
  return { at, ports }
}

test('the leader hands over to another voter and waits until all agree; a follower and a worker do nothing', async () => {
  const leader = await machine({ settlesAtMs: 3000 })
  await drainMachine(leader.ports)
  expect(leader.at.moved).toEqual([2n])
  expect(leader.at.elapsedMs).toBe(3000)
  for (const other of [await machine({ leaderId: 2n }), await machine({ role: 'worker' })]) {
    await drainMachine(other.ports)
    expect(other.at.moved).toEqual([])
  }
  const alone = await machine({ voters: [1n] })
  await drainMachine(alone.ports)
  expect(alone.at.moved).toEqual([])
})

test('pods are asked until they have ended, with the time the reboot may take', async () => {
  const { at, ports } = await machine({ leaderId: 2n, podsEndAtMs: 1000 })
  await drainMachine(ports)
  expect(at.asked).toEqual(Array(3).fill({ path: '/v1/drain', graceSeconds: 10, forSeconds: 190 }))
  await undrainMachine(ports)
  expect(at.asked.at(-1)).toEqual({ path: '/v1/resume' })
})

test('nothing keeps a drain from ending: pods that stay, a store that does not settle, a runtime that is away', async () => {
  const stuck = await machine({ leaderId: 2n, podsEndAtMs: Number.POSITIVE_INFINITY })
  await drainMachine(stuck.ports)
  expect(stuck.at.elapsedMs).toBeLessThanOrEqual(12_000)
  const unsettled = await machine({ settlesAtMs: Number.POSITIVE_INFINITY })
  await drainMachine(unsettled.ports)
  expect(unsettled.at.elapsedMs).toBeLessThanOrEqual(16_000)
  const refused = await machine({ moves: 'refused' })
  await drainMachine(refused.ports)
  expect(refused.at.asked).toHaveLength(1)
  const away = await machine({ runtime: false })
  await drainMachine(away.ports)
  await undrainMachine(away.ports)
})
