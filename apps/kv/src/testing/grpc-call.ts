import http2 from 'node:http2'

export type ClientTls = { ca: string; cert: string; key: string }

export type GrpcAnswer = { code: number; message: string; replies: Buffer[] }

/**
 * One gRPC call over node's own HTTP/2: for the exact codes and texts that a server answers with. The client's side ends with
 * the requests, or when `repliesAwaited` replies are there.
 */
export function grpcCall(
  url: string,
  path: string,
  requests: readonly Uint8Array[],
  headers: Record<string, string> = {},
  { repliesAwaited = 0, tls }: { repliesAwaited?: number; tls?: ClientTls } = {},
): Promise<GrpcAnswer> {
  return new Promise((resolve, reject) => {
    const session = http2.connect(url, tls ?? {})
    session.on('error', reject)
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    })
    const chunks: Buffer[] = []
    let status: http2.IncomingHttpHeaders = {}
    stream.on('response', (head) => {
      if (head['grpc-status'] !== undefined) status = head
    })
    stream.on('trailers', (trailers) => {
      status = trailers
    })
    stream.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      if (repliesAwaited > 0 && messagesOf(Buffer.concat(chunks)).length >= repliesAwaited) stream.end()
    })
    stream.on('error', reject)
    stream.on('end', () => {
      session.close()
      const message = decodeURIComponent(String(status['grpc-message'] ?? ''))
      resolve({ code: Number(status['grpc-status']), message, replies: messagesOf(Buffer.concat(chunks)) })
    })
    for (const request of requests) {
      const head = Buffer.alloc(5)
      head.writeUInt32BE(request.length, 1)
      stream.write(Buffer.concat([head, request]))
    }
    if (repliesAwaited === 0) stream.end()
  })
}

function messagesOf(bytes: Buffer): Buffer[] {
  const messages: Buffer[] = []
  for (let at = 0; at + 5 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at + 1)
    if (at + 5 + length > bytes.length) break
    messages.push(bytes.subarray(at + 5, at + 5 + length))
    at += 5 + length
  }
  return messages
}
