import { Fault } from '@kiln/service'
import type { FastifyInstance } from 'fastify'
import type { z } from 'zod'

/** A request's body by its schema; every problem is named. */
export function body<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const problems = result.error.issues.map(
    (issue) => `${issue.path.map(String).join('.') || 'body'}: ${issue.message}`,
  )
  throw new Fault('BODY_INVALID', problems.slice(0, 8).join('; '))
}

/** Every body is JSON, whatever it is called: shells and boot ROMs seldom say. An empty one is no body. */
export function acceptJson(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, text, done) => {
    if (text === '') return done(null, undefined)
    try {
      done(null, JSON.parse(text as string))
    } catch (cause) {
      done(new Fault('BODY_INVALID', 'the body is not JSON', { cause }))
    }
  })
}
