import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import type { ServiceContext } from '../api/context.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'
import { lazyRoutes } from './lazy-routes.ts'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

test('pages that are first asked for side by side are all answered', async () => {
  const server: LoneServer = await startLoneServer()
  closers.push(() => server.close())
  const pages = ['/version', '/health', '/livez', '/metrics']
  const answers = await Promise.all(pages.map((page) => fetch(server.url + page)))
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200])
  expect(await answers[0]!.json()).toMatchObject({ etcdserver: expect.any(String) })
})

test('what is not there is told of as etcd does', async () => {
  const { url, close } = await startLoneServer()
  closers.push(close)
  const told = async (path: string, method = 'GET'): Promise<[number, string]> => {
    const answer = await fetch(url + path, { method })
    return [answer.status, await answer.text()]
  }
  expect(await told('/nowhere')).toEqual([404, '404 page not found\n'])
  expect(await told('/health', 'POST')).toEqual([405, 'Method Not Allowed\n'])
  expect(await told('/v3/nowhere', 'POST')).toEqual([404, '{"code":5,"message":"Not Found"}'])
  expect((await told('/v3/kv/range'))[0]).toBe(501)
})

test('pages that cannot be made are answered with 500, and the reason is logged', async () => {
  const logged: string[] = []
  // Without settings the routes cannot be made.
  const routes = lazyRoutes({} as ServiceContext, () => '', {
    error: (_fields: unknown, text?: string) => void logged.push(text ?? ''),
  })
  const server = createServer(routes.routing).listen(0, '127.0.0.1')
  closers.push(() => server.close(), routes.close)
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  expect((await fetch(`http://127.0.0.1:${port}/version`)).status).toBe(500)
  expect(logged.join()).toMatch(/undefined/)
})

test('closing what was never asked for loads nothing and ends', async () => {
  const routes = lazyRoutes({} as ServiceContext, () => '', { error: () => undefined })
  await expect(routes.close()).resolves.toBeUndefined()
})
