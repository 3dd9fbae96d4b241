import { createSocket } from 'node:dgram'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { readTftp } from './tftp-request.ts'

type Behaviour = { options?: boolean; loseEach?: number; error?: [number, string]; silent?: boolean }

/** A server of one file in this process, which may know options, lose packets or refuse. */
async function serving<T>(
  body: Buffer,
  { options, loseEach, error, silent }: Behaviour,
  use: (port: number, requests: string[]) => Promise<T>,
): Promise<T> {
  const socket = createSocket('udp4')
  const requests: string[] = []
  let blockBytes = 512
  let count = 0
  socket.on('message', (packet, { port, address }) => {
    const reply = (...parts: (Buffer | number[])[]): void => {
      count++
      if (loseEach && count % loseEach === 0) return
      socket.send(Buffer.concat(parts.map((part) => Buffer.from(part))), port, address)
    }
    const block = (number: number): void =>
      reply(
        [0, 3, (number >> 8) & 0xff, number & 0xff],
        body.subarray((number - 1) * blockBytes, number * blockBytes),
      )
    if (silent) return
    if (packet.readUInt16BE(0) !== 1) {
      const number = packet.readUInt16BE(2)
      if (number * blockBytes <= body.length) block(number + 1)
      return
    }
    requests.push(packet.subarray(2).toString())
    if (error) reply([0, 5, 0, error[0]], Buffer.from(`${error[1]}\0`))
    else if (!options) block(1)
    else {
      blockBytes = 1024
      reply([0, 6], Buffer.from('blksize\x001024\0'))
    }
  })
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
  try {
    return await use((socket.address() as AddressInfo).port, requests)
  } finally {
    socket.close()
  }
}

const read = (port: number, bytesMax = 1 << 20, signal?: AbortSignal): Promise<Buffer> =>
  readTftp({ host: '127.0.0.1', port, path: '/a/file', bytesMax, signal, retryMs: 20 })
const content = Buffer.from(Array.from({ length: 5000 }, (_, at) => at & 0xff))

test.each<[string, number, Behaviour]>([
  ['a server without options', 5000, {}],
  ['a larger block size', 5000, { options: true }],
  ['a file that ends at a block', 1024, {}],
  ['an empty file', 0, {}],
  ['lost packets', 5000, { options: true, loseEach: 3 }],
])('%s', async (_, length, behaviour) => {
  const file = content.subarray(0, length)
  const found = await serving(file, behaviour, async (port, requests) => {
    const bytes = await read(port)
    expect(requests[0]).toContain('/a/file\0octet\0')
    return bytes
  })
  expect(found.equals(file)).toBe(true)
})

test.each<[string, Behaviour, number, string]>([
  ['a missing file', { error: [1, 'File not found'] }, 1 << 20, 'RESOURCE_NOT_FOUND'],
  ['a refusal', { error: [2, 'Access violation'] }, 1 << 20, 'RESOURCE_REFUSED'],
  ['more than is taken', {}, 1000, 'RESOURCE_TOO_LARGE'],
])('%s ends it', async (_, behaviour, bytesMax, code) => {
  await serving(content, behaviour, async (port) => {
    await expect(read(port, bytesMax)).rejects.toMatchObject({ code })
  })
})

test('a server that does not answer is given up, or when time is up', async () => {
  await serving(content, { silent: true }, async (port) => {
    await expect(read(port)).rejects.toThrow(/not answered/)
    await expect(read(port, 1000, AbortSignal.timeout(10))).rejects.toThrow(/in time/)
  })
})
