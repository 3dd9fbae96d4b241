import http2 from 'node:http2'
import { parentPort, Worker, workerData } from 'node:worker_threads'

/** A client in a thread of its own, so that what it does with large answers is no pause of the server's loop. */
export type Caller = {
  /** Bytes of the answer to one gRPC call. */
  call(path: string, request: Uint8Array): Promise<number>
  close(): Promise<void>
}

type Ask = { path: string; request: Uint8Array }
type Answer = { bytes: number; status: string }

export function startCaller(url: string, token?: string): Caller {
  const worker = new Worker(new URL(import.meta.url), { workerData: { callerUrl: url, token } })
  return {
    call: (path, request) =>
      new Promise((resolve, reject) => {
        worker.once('message', ({ bytes, status }: Answer) =>
          status === '0' ? resolve(bytes) : reject(new Error(`${path} ended with ${status}`)),
        )
        worker.postMessage({ path, request } satisfies Ask)
      }),
    close: async () => {
      await worker.terminate()
    },
  }
}

function serve(url: string, token: string | undefined): void {
  const session = http2.connect(url, { settings: { initialWindowSize: 8 << 20 } })
  session.once('connect', () => session.setLocalWindowSize(16 << 20))
  parentPort!.on('message', ({ path, request }: Ask) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(token ? { token } : {}),
    })
    let bytes = 0
    let status = ''
    const noteStatus = (head: http2.IncomingHttpHeaders): void => {
      if (head['grpc-status'] !== undefined)
        status = `${head['grpc-status']} ${head['grpc-message'] ?? ''}`.trim()
    }
    stream.on('response', noteStatus)
    stream.on('trailers', noteStatus)
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length
    })
    stream.on('close', () => parentPort!.postMessage({ bytes, status } satisfies Answer))
    const head = Buffer.alloc(5)
    head.writeUInt32BE(request.length, 1)
    stream.end(Buffer.concat([head, request]))
  })
}

if (parentPort && workerData?.callerUrl) serve(workerData.callerUrl, workerData.token)
