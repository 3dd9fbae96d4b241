import { request } from 'node:http'
import { Fault } from '@kiln/service'

/** Calls the daemon; its refusals come back as the same Fault. */
export function callRuntime<T>(
  socket: string,
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { socketPath: socket, method, path, headers: { 'content-type': 'application/json' }, timeout: 120_000 },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8')
          try {
            const value = JSON.parse(text) as T & { code: string; message: string }
            if (response.statusCode === 200) resolve(value)
            else reject(new Fault(value.code, value.message))
          } catch (error) {
            reject(new Fault('RUNTIME_UNREACHABLE', 'kiln-runtime gave no proper answer', { cause: error }))
          }
        })
      },
    )
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer in time')))
    outgoing.on('error', (error: NodeJS.ErrnoException) => {
      const denied = error.code === 'EACCES'
      reject(
        new Fault('RUNTIME_UNREACHABLE', `cannot reach kiln-runtime at ${socket}`, {
          cause: error,
          remedy: denied ? 'only root may talk to it' : 'is kiln-runtime.service running?',
        }),
      )
    })
    outgoing.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

/** DESIGN section 4: 3 not found, 4 precondition, 6 unreachable, 7 config invalid. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof Fault)) return 1
  switch (error.code) {
    case 'POD_NOT_FOUND':
      return 3
    case 'RUNTIME_NEEDS_ROOT':
    case 'RUNTIME_NEEDS_CGROUP_V2':
    case 'RUNTIME_NEEDS_INIT':
    case 'POD_NAME_TAKEN':
    case 'POD_NOT_ALLOWED':
    case 'POD_NOT_RUNNING':
      return 4
    case 'RUNTIME_UNREACHABLE':
      return 6
    case 'POD_INVALID':
    case 'SETTINGS_INVALID':
      return 7
    default:
      return 1
  }
}
