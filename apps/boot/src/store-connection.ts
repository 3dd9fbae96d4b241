import { EtcdClient } from '@kiln/etcd-api'
import type { MemberApi } from './store-membership.ts'

const timeoutMs = 4000

/** The membership calls of the running store, as the operator. */
export function connectMembers(at: {
  endpoints: readonly string[]
  ca: string
  certificate: string
  key: string
}): MemberApi {
  const tls = { ca: at.ca, cert: at.certificate, key: at.key }
  const client = new EtcdClient({ endpoints: at.endpoints, tls, timeoutMs })
  return {
    list: async () => {
      const members = await client.memberList()
      return members.map(({ id, name, peerUrls }) => ({ id: id.toString(16), name, peerUrls }))
    },
    add: async (peerUrl) => {
      await client.memberAdd({ peerUrls: [peerUrl] })
    },
    remove: async (id) => {
      await client.memberRemove(BigInt(`0x${id}`))
    },
    close: async () => client.close(),
  }
}
