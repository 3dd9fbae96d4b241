import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import { type FakeMember, fakeState, startFakeMember } from '@kiln/etcd-api/fake-store'
import { storeKeys } from '@kiln/schemas'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Namespace } from '../testing/cni-machine.ts'
import {
  type OverlayMachine,
  type OverlayPod,
  openOverlayMachine,
  openSwitch,
} from '../testing/overlay-machine.ts'
import { readOverlay } from './overlay-kernel.ts'
import { subnetKey } from './overlay-records.ts'

const refusal = process.getuid?.() === 0 ? undefined : 'making network namespaces needs root'
if (refusal) console.log(`machines that are namespaces are left out: ${refusal}`)
const whenPossible = test.skipIf(refusal !== undefined)

let folder: string
let link: Namespace
let member: FakeMember
let store: EtcdClient
let machines: OverlayMachine[]

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kiln-overlay-'))
  machines = []
  member = await startFakeMember(fakeState(), 1n)
  store = new EtcdClient({ endpoints: [member.url] })
  if (!refusal) link = await openSwitch()
})
afterEach(async () => {
  for (const machine of machines) await machine.close()
  await link?.close()
  store.close()
  await member.stop()
  rmSync(folder, { recursive: true })
})

async function startMachine(id: string, address: string): Promise<OverlayMachine> {
  const machine = await openOverlayMachine({ link, folder, id, address, storeUrl: member.url })
  machines.push(machine)
  return machine
}

const configure = (config: object): Promise<unknown> =>
  store.put(storeKeys.networkConfig, JSON.stringify(config))
const owners = async (): Promise<Record<string, string>> => {
  const { entries } = await store.getPrefix(storeKeys.networkSubnets)
  return Object.fromEntries(
    entries.map(({ key, text }) => [key.split('/').at(-1)!, JSON.parse(text).machine]),
  )
}
const soon = { timeout: 8_000, interval: 50 }
const routes = async (machine: OverlayMachine): Promise<string[]> =>
  (await kernel(machine)).routes.map(({ subnet }) => subnet).sort()
const kernel = (machine: OverlayMachine) =>
  readOverlay((command, args) => machine.namespace.run(command, ...args))

/** Answers every datagram, and tells each caller of TCP its address. */
const echo = `
const udp = require('dgram').createSocket('udp4')
udp.on('message', (bytes, from) => udp.send(bytes, from.port, from.address)).bind(8080)
require('net').createServer((s) => s.end(s.remoteAddress)).listen(8080, '0.0.0.0', () => console.log('listens'))`
async function serve(pod: OverlayPod): Promise<void> {
  const server = pod.spawn(process.execPath, '-e', echo)
  await new Promise((resolve) => server.stdout!.once('data', resolve))
}
const node = (from: Namespace, script: string): Promise<string> => from.run(process.execPath, '-e', script)
/** Sends a datagram until it comes back; as large as the pod's own network takes, it may not be broken up on the way. */
const reaches = (from: Namespace, to: OverlayPod, mtu: number): Promise<string> =>
  node(
    from,
    `const udp = require('dgram').createSocket('udp4')
udp.on('message', (bytes) => process.exit(bytes.length === ${mtu - 28} ? 0 : 2))
setInterval(() => udp.send(Buffer.alloc(${mtu - 28}), 8080, '${to.address}'), 100)
setTimeout(() => process.exit(1), 5000)`,
  )
const callerSeenBy = (from: OverlayPod, to: OverlayPod): Promise<string> =>
  node(
    from,
    `const socket = require('net').connect(8080, '${to.address}')
socket.setTimeout(5000, () => process.exit(1)).pipe(process.stdout)`,
  )
/** Sends a datagram every 10 ms until its standard input ends, and says how many of them were not answered. */
const stream = (to: string): string => `
let sent = 0, answered = 0
const udp = require('dgram').createSocket('udp4').on('message', () => { answered++; if (answered === 1) console.log('runs') })
const timer = setInterval(() => { sent++; udp.send('x', 8080, '${to}') }, 10)
process.once('SIGINT', () => { clearInterval(timer); setTimeout(() => { console.log('lost ' + (sent - answered)); process.exit(0) }, 1000) })`

for (const { backend, mtu } of [
  { backend: 'host-gw', mtu: 1500 },
  { backend: 'vxlan', mtu: 1450 },
])
  whenPossible(
    `pods of two machines reach each other by ${backend}, under their own addresses, with packets as large as their network takes`,
    async () => {
      await configure({ network: '10.88.0.0/16', backend })
      const one = await startMachine('node1', '10.77.0.11')
      const two = await startMachine('node2', '10.77.0.12')
      await vi.waitFor(async () => expect(await routes(one)).toEqual(['10.88.12.0/24']), soon)
      await vi.waitFor(async () => expect(await routes(two)).toEqual(['10.88.11.0/24']), soon)
      // Each has the subnet that its bridge had anyway.
      expect(await owners()).toEqual({ '10.88.11.0-24': 'node1', '10.88.12.0-24': 'node2' })
      expect(readFileSync(join(folder, 'node1/subnet.env'), 'utf8')).toBe(
        `FLANNEL_NETWORK=10.88.0.0/16\nFLANNEL_SUBNET=10.88.11.1/24\nFLANNEL_MTU=${mtu}\nFLANNEL_IPMASQ=true\n`,
      )
      const [from, to] = [await one.addPod(), await two.addPod()]
      await serve(to)
      expect(await from.run('ip', 'link', 'show', 'eth0')).toContain(` mtu ${mtu} `)
      await reaches(from, to, mtu)
      expect(await callerSeenBy(from, to)).toBe(from.address)
      // The machine itself reaches pods of others too.
      await reaches(one.namespace, to, 100)

      // A third one comes and goes.
      const three = await startMachine('node3', '10.77.0.13')
      await vi.waitFor(async () => expect(await routes(one)).toContain('10.88.13.0/24'), soon)
      await three.stop()
      await store.delete(subnetKey('10.88.13.0/24'))
      await vi.waitFor(async () => expect(await routes(one)).toEqual(['10.88.12.0/24']), {
        timeout: 2_000,
        interval: 50,
      })

      // Neither a restart of the daemon nor an absence of the store is noticed by pods.
      const sender = from.spawn(process.execPath, '-e', stream(to.address))
      let output = ''
      sender.stdout!.on('data', (chunk) => {
        output += chunk
      })
      await vi.waitFor(() => expect(output).toContain('runs'), soon)
      const lease = await leaseOf('10.88.11.0/24')
      await one.restart()
      await two.restart()
      // The new daemons have caught up when they know of another machine.
      const record = { formatVersion: 1, machine: 'node4', address: '10.77.0.14', mac: '02:00:00:00:00:04' }
      await store.put(subnetKey('10.88.14.0/24'), JSON.stringify(record))
      for (const machine of [one, two])
        await vi.waitFor(async () => expect(await routes(machine)).toContain('10.88.14.0/24'), soon)
      sender.kill('SIGINT')
      await new Promise((resolve) => sender.once('exit', resolve))
      expect(output).toMatch(/^lost 0$/m)
      expect(await leaseOf('10.88.11.0/24')).toBe(lease)
      expect(one.moves).toBeLessThanOrEqual(1)

      // Without settings nothing is left of it.
      await store.delete(storeKeys.networkConfig)
      await vi.waitFor(async () => {
        expect(await kernel(one)).toEqual({ devices: [], routes: [], neighbours: [], forwardings: [] })
      }, soon)
    },
    60_000,
  )

const leaseOf = async (subnet: string): Promise<bigint> => (await store.get(subnetKey(subnet)))!.lease

whenPossible(
  'settings that change are followed: another network, another backend, what somebody else took away',
  async () => {
    await configure({ network: '10.88.0.0/16', backend: 'host-gw' })
    const one = await startMachine('node1', '10.77.0.11')
    const two = await startMachine('node2', '10.77.0.12')
    await vi.waitFor(async () => expect(await routes(one)).toEqual(['10.88.12.0/24']), soon)
    const old = await one.addPod()
    const settings = { network: '10.244.0.0/16', backend: 'vxlan', vni: 7 }
    await configure(settings)
    await vi.waitFor(async () => {
      expect(Object.values(await owners()).sort()).toEqual(['node1', 'node2'])
      expect(await routes(one)).toEqual([two.podNetwork.subnet])
      expect(await routes(two)).toEqual([one.podNetwork.subnet])
      expect(one.podNetwork.subnet).toMatch(/^10\.244\.\d+\.0\/24$/)
      expect((await kernel(one)).devices.map(({ name }) => name)).toEqual(['kiln.7'])
    }, soon)
    const [from, to] = [await one.addPod(), await two.addPod()]
    await serve(to)
    expect(from.address).toMatch(/^10\.244\./)
    await reaches(from, to, 1450)
    // A pod of before keeps its address, and reaches the others under that of its machine.
    expect(await callerSeenBy(old, to)).not.toBe(old.address)

    // What is no network changes nothing.
    await configure({ network: '10.0.0.0/8', backend: 'vxlan' })
    await one.namespace.run('ip', 'route', 'flush', 'proto', '75')
    await one.restart()
    expect(await routes(one)).toEqual([])
    await configure(settings)
    await vi.waitFor(async () => expect(await routes(one)).toEqual([two.podNetwork.subnet]), soon)
    expect(one.podNetwork.subnet).toBe(from.address.replace(/\d+$/, '0/24'))

    // A subnet that another machine has is not taken, and one that was lost is asked for again.
    const lost = one.podNetwork.subnet
    await store.delete(subnetKey(lost))
    await vi.waitFor(
      async () => expect(await owners()).toHaveProperty(lost.split('/')[0] + '-24', 'node1'),
      soon,
    )
    const thief = JSON.stringify({ formatVersion: 1, machine: 'node9', address: '10.77.0.19' })
    await store.put(subnetKey(lost), thief)
    await vi.waitFor(async () => {
      expect(one.podNetwork.subnet).not.toBe(lost)
      expect(await owners()).toMatchObject({ [one.podNetwork.subnet.replace('/', '-')]: 'node1' })
    }, soon)
    await reaches(await one.addPod(), to, 1400)
  },
  60_000,
)
