import { Session } from 'node:inspector/promises'
import type { FastifyInstance } from 'fastify'

const secondsDefault = 30
const secondsMax = 300

/**
 * Profiles of this process below `/debug/pprof`, in the format of V8 instead of Go's: open them with the developer tools of a
 * browser. One at a time, only with `--enable-pprof`.
 */
export function serveProfiles(app: FastifyInstance): void {
  let isRunning = false
  const profile = async (seconds: number, kind: 'cpu' | 'heap'): Promise<unknown> => {
    const session = new Session()
    session.connect()
    isRunning = true
    try {
      if (kind === 'cpu') {
        await session.post('Profiler.enable')
        await session.post('Profiler.start')
      } else await session.post('HeapProfiler.startSampling')
      await new Promise((resume) => setTimeout(resume, seconds * 1000))
      const { profile: result } =
        kind === 'cpu' ? await session.post('Profiler.stop') : await session.post('HeapProfiler.stopSampling')
      return result
    } finally {
      isRunning = false
      session.disconnect()
    }
  }
  app.get('/debug/pprof/', async (_request, reply) =>
    reply
      .type('text/plain')
      .send(
        'profile?seconds=N  what the processor does, as .cpuprofile\nheap?seconds=N     what is allocated, as .heapprofile\n',
      ),
  )
  for (const [path, kind] of [
    ['profile', 'cpu'],
    ['heap', 'heap'],
  ] as const) {
    app.get(`/debug/pprof/${path}`, async (request, reply) => {
      const asked = Number((request.query as Record<string, string>)['seconds'] ?? secondsDefault)
      if (!(asked > 0 && asked <= secondsMax))
        return reply.code(400).send(`seconds is not between 0 and ${secondsMax}\n`)
      if (isRunning) return reply.code(409).send('another profile is being taken\n')
      const result = await profile(asked, kind)
      return reply.header('content-disposition', `attachment; filename="${path}.${kind}profile"`).send(result)
    })
  }
}
