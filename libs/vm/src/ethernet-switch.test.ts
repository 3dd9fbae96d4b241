import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { EthernetSwitch } from './ethernet-switch.ts'
import { FrameReader, frameHeaderBytes } from './frame-reader.ts'
import { isolation } from './switch-faults.ts'

const macs = ['52:54:00:4b:01:01', '52:54:00:4b:01:02', '52:54:00:4b:01:03'] as const
const broadcast = 'ff:ff:ff:ff:ff:ff'
const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

function frame(to: string, from: string, text: string): Buffer {
  const bytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex')
  const body = Buffer.concat([bytes(to), bytes(from), Buffer.from([0x88, 0xb5]), Buffer.from(text)])
  const header = Buffer.alloc(frameHeaderBytes)
  header.writeUInt32BE(body.length)
  return Buffer.concat([header, body])
}

type Station = {
  socket: Socket
  send(to: string, text: string): void
  receive(): Promise<string>
  got: string[]
}

async function network(): Promise<{ ether: EthernetSwitch; stations: Station[] }> {
  const path = join(mkdtempSync(join(tmpdir(), 'kiln-switch-')), 's')
  const ether = await EthernetSwitch.listen({
    path,
    nodes: { [macs[0]]: 'node1', [macs[1]]: 'node2', [macs[2]]: 'node3' },
  })
  closers.push(() => ether.close())
  const stations = await Promise.all(
    macs.map(async (mac): Promise<Station> => {
      const socket = connect(path)
      await once(socket, 'connect')
      const reader = new FrameReader()
      const got: string[] = []
      let wake = (): void => undefined
      socket.on('data', (chunk: Buffer) => {
        for (const received of reader.push(chunk)) got.push(received.toString('utf8', frameHeaderBytes + 14))
        wake()
      })
      let read = 0
      const receive = async (): Promise<string> => {
        while (got.length <= read)
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        return got[read++]!
      }
      return { socket, send: (to, text) => void socket.write(frame(to, mac, text)), receive, got }
    }),
  )
  while (ether.statistics().ports < stations.length) await new Promise((resolve) => setImmediate(resolve))
  // Everybody speaks once, so that addresses are learned.
  for (const [index, station] of stations.entries()) {
    station.send(broadcast, `hello ${index}`)
    for (const other of stations) if (other !== station) await other.receive()
  }
  return { ether, stations }
}

test('a frame to a learned address reaches that node only', async () => {
  const { stations } = await network()
  stations[0]!.send(macs[1], 'for two')
  expect(await stations[1]!.receive()).toBe('for two')
  stations[0]!.send(broadcast, 'for all')
  expect(await stations[2]!.receive()).toBe('for all')
})

test('an isolated node is heard by nobody and hears nobody until it is healed', async () => {
  const { ether, stations } = await network()
  ether.setFaults(isolation('node1'))
  stations[0]!.send(macs[1], 'lost')
  stations[1]!.send(macs[0], 'lost too')
  stations[2]!.send(macs[1], 'from three')
  expect(await stations[1]!.receive()).toBe('from three')
  while (ether.statistics().dropped < 2) await new Promise((resolve) => setImmediate(resolve))
  ether.setFaults([])
  stations[0]!.send(macs[1], 'back')
  expect(await stations[1]!.receive()).toBe('back')
  expect(stations[0]!.got).not.toContain('lost too')
})

test('a delayed frame arrives later than one sent after it the other way', async () => {
  const { ether, stations } = await network()
  ether.setFaults([{ from: 'node1', to: 'node2', fault: { delayMs: 50 } }])
  stations[0]!.send(macs[1], 'slow')
  stations[2]!.send(macs[1], 'fast')
  expect(await stations[1]!.receive()).toBe('fast')
  expect(await stations[1]!.receive()).toBe('slow')
})

test('a node that does not read cannot fill the memory of the switch', async () => {
  const { ether, stations } = await network()
  stations[1]!.socket.pause()
  const bulk = 'x'.repeat(60_000)
  for (let sent = 0; sent < 400; sent++) stations[0]!.send(macs[1], bulk)
  while (ether.statistics().dropped === 0) await new Promise((resolve) => setTimeout(resolve, 20))
  stations[0]!.send(macs[2], 'still here')
  expect(await stations[2]!.receive()).toBe('still here')
})
