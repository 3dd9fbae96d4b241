import type { RequestListener } from 'node:http'
import { describeError, type Log } from '@kiln/service'
import type { FastifyInstance } from 'fastify'
import type { ServiceContext } from '../api/context.ts'

export type LazyRoutes = {
  routing: RequestListener
  close(): Promise<void>
}

/**
 * The pages of `createRoutes`, loaded when one is first asked for: a member that only gRPC talks to does without fastify and its
 * schema compilers, a third of the program.
 */
export function lazyRoutes(
  context: ServiceContext,
  metrics: () => string,
  log: Pick<Log, 'error'>,
): LazyRoutes {
  let loading: Promise<FastifyInstance> | undefined
  const load = (): Promise<FastifyInstance> => {
    loading ??= import('./routes.ts').then(({ createRoutes }) => createRoutes(context, metrics))
    return loading
  }
  return {
    routing: (request, response) => {
      load().then(
        (app) => app.routing(request, response),
        (error: unknown) => {
          log.error({ error }, describeError(error))
          response.writeHead(500, { 'content-length': 0 })
          response.end()
        },
      )
    },
    close: async () => {
      const app = await loading?.catch(() => undefined)
      await app?.close()
    },
  }
}
