import * as rpc from '@kiln/etcd-api/rpc'
import { expect, test } from 'vitest'
import { countEvents } from './watch-events.ts'

test('events are counted as a decoder would', () => {
  for (const length of [0, 1, 3, 500]) {
    const message = rpc.WatchResponse.fromPartial({
      header: { clusterId: 2n ** 63n, memberId: 7n, revision: 12_345n, raftTerm: 2n },
      watchId: 300n,
      created: length === 0,
      cancelReason: 'x'.repeat(200),
      events: Array.from({ length }, () => ({
        kv: { key: Buffer.from('k'), value: Buffer.alloc(300, 0x5a) },
      })),
    })
    expect(countEvents(rpc.WatchResponse.encode(message).finish())).toBe(length)
  }
})
