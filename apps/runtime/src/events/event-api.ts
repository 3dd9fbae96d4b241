import type { ServerResponse } from 'node:http'
import type { EventLog, PodEvent } from './event-log.ts'

const heartbeatMs = 30_000
/** Whoever does not read for that long is let go. */
const unreadBytesMax = 1 << 20

/** Answers the events there are as lines of JSON and, if it is asked to follow, those to come. Empty lines say that nothing happened. */
export function answerEvents(response: ServerResponse, events: EventLog, query: URLSearchParams): void {
  const pod = query.get('pod') ?? undefined
  const after = Number(query.get('after') ?? 0) || 0
  response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  const write = (event: PodEvent): void => {
    if (pod !== undefined && event.pod !== pod && event.uuid !== pod) return
    response.write(`${JSON.stringify(event)}\n`)
    if (response.writableLength > unreadBytesMax) response.destroy()
  }
  for (const event of events.list({ pod, after })) write(event)
  if (!query.has('follow')) return void response.end()
  const stop = events.follow(write)
  const beat = setInterval(() => response.write('\n'), heartbeatMs)
  response.on('close', () => {
    stop()
    clearInterval(beat)
  })
}
