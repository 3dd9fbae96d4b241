import http from 'node:http'
import type { Socket } from 'node:net'
import type { Member } from './types.ts'

const requestBytesMax = 16 * 1024

/** Whether the first bytes on a peer connection are an HTTP request instead of a hello. */
export const isHttp = (chunk: Buffer): boolean =>
  /^(GET|HEAD|POST|PUT|DELETE|OPTIONS) /.test(chunk.toString('latin1', 0, 8))

/** What etcd's peer port answers to anybody: the members (`/members`). */
export function createPeerHttp(clusterId: bigint, members: () => readonly Member[]): http.Server {
  return http.createServer({ maxHeaderSize: requestBytesMax }, (request, response) => {
    response.setHeader('X-Etcd-Cluster-ID', clusterId.toString(16))
    if (request.url !== '/members') {
      response.writeHead(404).end('404 page not found\n')
      return
    }
    if (request.method !== 'GET') {
      response.writeHead(405, { allow: 'GET' }).end('Method Not Allowed\n')
      return
    }
    response.writeHead(200, { 'content-type': 'application/json' }).end(`${membersText(members())}\n`)
  })
}

/** Ids are numbers of 64 bits here, which JSON.stringify cannot write. */
function membersText(members: readonly Member[]): string {
  const texts = members.map(({ id, name, peerUrls, clientUrls, learner }) => {
    const rest = {
      peerURLs: peerUrls,
      ...(name ? { name } : {}),
      ...(clientUrls.length > 0 ? { clientURLs: clientUrls } : {}),
      ...(learner ? { isLearner: true } : {}),
    }
    return `{"id":${id},${JSON.stringify(rest).slice(1)}`
  })
  return `[${texts.join(',')}]`
}

/** Gives a connection over whose first bytes were read already. */
export function handOverHttp(server: http.Server, socket: Socket, first: Buffer): void {
  socket.removeAllListeners('data')
  socket.removeAllListeners('timeout')
  socket.pause()
  socket.unshift(first)
  server.emit('connection', socket)
  process.nextTick(() => socket.resume())
}
