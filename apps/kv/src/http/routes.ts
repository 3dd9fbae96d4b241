import { version } from '@kiln/service'
import fastify, { type FastifyInstance } from 'fastify'
import type { ServiceContext } from '../api/context.ts'
import { apiVersion, clusterVersion } from '../api/maintenance-service.ts'
import type { Settings } from '../settings/settings.ts'
import { type Check, checksOf, healthOf } from './health.ts'
import { serveProfiles } from './profiles.ts'

/** What is not gRPC: health, version and metrics, as etcd has them (kv.md section 8). */
export async function createRoutes(context: ServiceContext, metrics: () => string): Promise<FastifyInstance> {
  const app = fastify({ logger: false, bodyLimit: 64 * 1024 })
  app.get('/version', async () => ({
    etcdserver: apiVersion,
    etcdcluster: clusterVersion,
    storage: clusterVersion,
    kiln: version,
  }))
  app.get('/config', async () => settingsView(context.settings))
  if (context.settings.profiles) serveProfiles(app)
  app.get('/metrics', async (_request, reply) => reply.type('text/plain; version=0.0.4').send(metrics()))
  app.get('/health', async (request, reply) => {
    const query = request.query as Record<string, string | string[]>
    const { healthy, reason } = await healthOf(context, {
      serializable: query['serializable'] === 'true',
      exclude: listOf(query['exclude']),
    })
    context.measures.healthChecks[healthy ? 'good' : 'bad']++
    return reply.code(healthy ? 200 : 503).send({ health: String(healthy), reason })
  })
  for (const [name, checks] of Object.entries(checksOf(context))) {
    app.get(`/${name}`, async (request, reply) => {
      const query = request.query as Record<string, string | string[]>
      const excluded = listOf(query['exclude'])
      const picked = Object.entries(checks).filter(([check]) => !excluded.includes(check))
      const { text, isGood } = await report(picked, query['verbose'] !== undefined)
      return reply
        .code(isGood ? 200 : 503)
        .type('text/plain; charset=utf-8')
        .send(text)
    })
    for (const entry of Object.entries(checks)) {
      app.get(`/${name}/${entry[0]}`, async (_request, reply) => {
        const { text, isGood } = await report([entry], false)
        return reply
          .code(isGood ? 200 : 503)
          .type('text/plain; charset=utf-8')
          .send(text)
      })
    }
  }
  app.setNotFoundHandler(async (request, reply) => {
    const path = request.url.split('?')[0]!
    // What etcd's gateway and its HTTP server say.
    if (path.startsWith('/v3/')) return reply.code(404).send({ code: 5, message: 'Not Found' })
    const isKnown = app.hasRoute({ method: 'GET', url: path })
    return reply
      .code(isKnown ? 405 : 404)
      .type('text/plain; charset=utf-8')
      .send(isKnown ? 'Method Not Allowed\n' : '404 page not found\n')
  })
  await app.ready()
  return app
}

/** The settings in effect; the certificates are there by the names of their files only. */
const settingsView = (settings: Settings): unknown =>
  JSON.parse(
    JSON.stringify(settings, (_key, value: unknown) =>
      typeof value === 'bigint' ? value.toString(16) : value,
    ),
  )

const listOf = (value: string | string[] | undefined): string[] =>
  value === undefined ? [] : Array.isArray(value) ? value : [value]

async function report(
  checks: [string, Check][],
  isVerbose: boolean,
): Promise<{ text: string; isGood: boolean }> {
  const lines: string[] = []
  let isGood = true
  for (const [name, check] of checks) {
    const problem = await check()
    if (problem) isGood = false
    lines.push(problem ? `[-]${name} failed: ${problem}` : `[+]${name} ok`)
  }
  return { text: isGood && !isVerbose ? 'ok\n' : `${lines.join('\n')}\n${isGood ? 'ok\n' : ''}`, isGood }
}
