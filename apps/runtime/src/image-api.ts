import type { ServerResponse } from 'node:http'
import { describeError, Fault, type Log } from '@kiln/service'
import * as z from 'zod'
import {
  CheckRequest,
  CollectRequest,
  ExportRequest,
  ExtractRequest,
  FetchRequest,
  type ImageService,
  ManifestRequest,
  NamesRequest,
  TrustRequest,
} from './image-service.ts'

/** How often a client hears that the work goes on. */
const heartbeatMs = 10_000

type Work = (images: ImageService, body: unknown, tell: (progress: object) => void) => Promise<unknown>

/** Everything below `/v1/images/`: work that may take minutes. */
const works: Record<string, Work> = {
  fetch: (images, body, tell) => images.fetch(FetchRequest.parse(body), tell),
  rm: (images, body) => images.remove(NamesRequest.parse(body)),
  gc: (images, body) => images.collect(CollectRequest.parse(body)),
  verify: (images, body) => images.verify(NamesRequest.parse(body)),
  fsck: (images, body) => images.check(CheckRequest.parse(body ?? {})),
  export: (images, body) => images.export(ExportRequest.parse(body)),
  extract: (images, body) => images.extract(ExtractRequest.parse(body)),
  manifest: (images, body) => images.manifest(ManifestRequest.parse(body)),
  trust: (images, body) => images.trust(TrustRequest.parse(body)),
  trusted: (images) => images.trusted(),
}

/** What is asked of images at `POST /v1/images/<name>`; undefined for another name. */
export const findImageWork = (path: string): Work | undefined => {
  const name = /^\/v1\/images\/([a-z]+)$/.exec(path)?.[1]
  return name !== undefined && Object.hasOwn(works, name) ? works[name] : undefined
}

/**
 * Answers with lines of JSON: `{"progress":...}` as often as there is some, empty lines while there is none, and last
 * `{"result":...}` or `{"error":{"code","message"}}`.
 */
export async function answerInLines(
  response: ServerResponse,
  log: Log,
  work: (tell: (progress: object) => void) => Promise<unknown>,
): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  const say = (value: object): void => {
    // A client that does not read gets no more progress than the socket holds.
    if (!response.writableNeedDrain || !('progress' in value)) response.write(`${JSON.stringify(value)}\n`)
  }
  const heart = setInterval(() => response.write('\n'), heartbeatMs)
  try {
    say({ result: (await work((progress) => say({ progress }))) ?? {} })
  } catch (error) {
    if (error instanceof z.ZodError)
      say({ error: { code: 'REQUEST_INVALID', message: z.prettifyError(error) } })
    else {
      const code = error instanceof Fault ? error.code : 'UNEXPECTED'
      say({ error: { code, message: describeError(error).replace(`${code}: `, '') } })
      if (code === 'UNEXPECTED') log.error({ error: describeError(error) }, 'a request failed')
    }
  } finally {
    clearInterval(heart)
    response.end()
  }
}
