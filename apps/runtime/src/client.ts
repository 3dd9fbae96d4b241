import { type IncomingMessage, request } from 'node:http'
import { createInterface } from 'node:readline'
import { Fault } from '@kiln/service'

/** How long the daemon may say nothing. */
const silenceMs = 120_000

type Call = { socket: string; method: 'GET' | 'POST'; path: string; body?: unknown }

/** Calls the daemon; its refusals come back as the same Fault. */
export async function callRuntime<T>(
  socket: string,
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
): Promise<T> {
  const response = await send({ socket, method, path, body })
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  const value = parse<T & { code: string; message: string }>(Buffer.concat(chunks).toString('utf8'))
  if (response.statusCode === 200) return value
  throw new Fault(value.code, value.message)
}

/** Calls for work that takes its time: hears how it goes on, and last its result. */
export async function callRuntimeLines<T>(
  socket: string,
  path: string,
  body: unknown,
  onProgress: (progress: unknown) => void = () => undefined,
): Promise<T> {
  const response = await send({ socket, method: 'POST', path, body })
  try {
    for await (const line of createInterface({ input: response })) {
      if (line === '') continue
      type Line = { progress?: unknown; result?: T; error?: { code: string; message: string } }
      const { progress, result, error, ...refusal } = parse<Line & { code?: string; message?: string }>(line)
      if (error) throw new Fault(error.code, error.message)
      if (refusal.code !== undefined) throw new Fault(refusal.code, refusal.message ?? '')
      if (result !== undefined) return result
      onProgress(progress)
    }
  } finally {
    response.destroy()
  }
  throw new Fault('RUNTIME_UNREACHABLE', 'kiln-runtime went away before it had an answer')
}

/** Hears each value of an answer in lines of JSON, until it ends. */
export async function followRuntime<T>(
  socket: string,
  path: string,
  heard: (value: T) => void,
): Promise<void> {
  const response = await send({ socket, method: 'GET', path })
  for await (const line of createInterface({ input: response })) {
    if (line === '') continue
    const value = parse<T & { code?: string; message?: string }>(line)
    if (response.statusCode !== 200) throw new Fault(value.code ?? 'UNEXPECTED', value.message ?? '')
    heard(value)
  }
}

function parse<T>(text: string): T {
  try {
    return JSON.parse(text) as T
  } catch (error) {
    throw new Fault('RUNTIME_UNREACHABLE', 'kiln-runtime gave no proper answer', { cause: error })
  }
}

function send({ socket, method, path, body }: Call): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' }
    const outgoing = request({ socketPath: socket, method, path, headers, timeout: silenceMs }, resolve)
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

/** DESIGN section 4: 2 usage, 3 not found, 4 precondition, 6 unreachable, 7 config invalid. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof Fault)) return 1
  switch (error.code) {
    case 'REQUEST_INVALID':
      return 2
    case 'POD_NOT_FOUND':
    case 'IMAGE_NOT_PRESENT':
    case 'IMAGE_NOT_FOUND':
    case 'IMAGE_KEY_NOT_FOUND':
      return 3
    case 'RUNTIME_NEEDS_ROOT':
    case 'RUNTIME_NEEDS_CGROUP_V2':
    case 'RUNTIME_NEEDS_INIT':
    case 'POD_NAME_TAKEN':
    case 'POD_NOT_ALLOWED':
    case 'POD_NOT_RUNNING':
    case 'POD_NOT_PREPARED':
    case 'POD_NOT_EXITED':
    case 'POD_AMBIGUOUS':
    case 'POD_UUID_TAKEN':
    case 'POD_RUNS':
    case 'IMAGE_AMBIGUOUS':
    case 'IMAGE_IN_USE':
    case 'IMAGE_STORE_BUSY':
    case 'IMAGE_REFUSED':
    case 'IMAGE_NOT_SIGNED':
    case 'IMAGE_SIGNATURE_REFUSED':
    case 'IMAGE_WITHOUT_BLOBS':
    case 'EXPORT_TARGET_EXISTS':
      return 4
    case 'RUNTIME_UNREACHABLE':
      return 6
    case 'POD_INVALID':
    case 'SETTINGS_INVALID':
    case 'IMAGE_POLICY_FILE':
    case 'IMAGE_KEY_INVALID':
    case 'IMAGE_PREFIX_INVALID':
      return 7
    default:
      return 1
  }
}
