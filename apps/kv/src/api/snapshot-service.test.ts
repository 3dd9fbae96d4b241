import { createHash } from 'node:crypto'
import * as rpc from '@kiln/etcd-api/rpc'
import { expect, test } from 'vitest'
import { grpcCall } from '../testing/grpc-call.ts'
import { startLoneServer } from '../testing/lone-server.ts'

test('a snapshot counts its bytes down and ends with the SHA-256 of them', async () => {
  const server = await startLoneServer()
  try {
    const { store } = server.context.state
    const value = Buffer.alloc(5000, 1)
    for (let at = 0; at < 100; at++) store.put({ key: Buffer.from(`k${at}`), value })
    const answer = await grpcCall(server.url, '/etcdserverpb.Maintenance/Snapshot', [Buffer.alloc(0)])
    expect(answer.code).toBe(0)
    const parts = answer.replies.map((reply) => rpc.SnapshotResponse.decode(reply))
    expect(parts.length).toBeGreaterThan(5)
    const whole = Buffer.concat(parts.map(({ blob }) => blob))
    expect(whole.length % 512).toBe(32)
    let left = whole.length - 32
    for (const { blob, remainingBytes, version, header } of parts.slice(0, -1)) {
      left -= blob.length
      expect(Number(remainingBytes)).toBe(left)
      expect(version).toBe('3.5.0')
      expect(header).toBeUndefined()
    }
    expect(left).toBe(0)
    const digest = createHash('sha256').update(whole.subarray(0, -32)).digest()
    expect(Buffer.from(parts.at(-1)!.blob)).toEqual(digest)
    expect(parts.at(-1)!.remainingBytes).toBe(0n)
  } finally {
    await server.close()
  }
})
