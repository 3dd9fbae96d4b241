import { gzipSync } from 'node:zlib'
import { createCa } from '@kiln/pki'
import { encodeDataUrl, type IgnitionConfig } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { ConfigInvalid } from './config-invalid.ts'
import { defaultFetchSettings } from './fetch-resource.ts'
import type { HttpCall } from './http-request.ts'
import { renderConfig } from './render-config.ts'
import { type Answer, answering, hurryingClock } from './simulated-run.ts'

type Body = Record<string, unknown>
const config = (rest: Body = {}, ignition: Body = {}): Body => ({
  ignition: { version: '3.4.0', ...ignition },
  ...rest,
})
const file = (path: string, text: string): Body => ({ path, contents: { source: `data:,${text}` } })
const dataUrl = (value: object): string => encodeDataUrl(Buffer.from(JSON.stringify(value)))

async function render(value: object | string, served: Record<string, object> = {}) {
  const calls: HttpCall[] = []
  const answers = Object.fromEntries(
    Object.entries(served).map(([path, body]): [string, Answer] => [
      path,
      { status: 200, body: JSON.stringify(body) },
    ]),
  )
  const fetcher = { http: answering(answers, calls), clock: hurryingClock(), network: true }
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 1)
  const { config: rendered, warnings } = await renderConfig(
    text,
    'http://h/config',
    fetcher,
    defaultFetchSettings,
  )
  return { rendered: rendered as IgnitionConfig, warnings, calls }
}

test('children are merged in order, each with its own children first', async () => {
  const served = {
    '/a': config(
      { storage: { files: [file('/x', 'a'), file('/y', 'a')] } },
      {
        config: { merge: [{ source: 'http://h/b' }] },
      },
    ),
    '/b': config({ storage: { files: [file('/x', 'b')] } }),
    '/c': config({ storage: { files: [file('/y', 'c')] } }),
  }
  const { rendered, calls } = await render(
    config(
      { storage: { files: [file('/x', 'parent')] } },
      {
        config: { merge: [{ source: 'http://h/a' }, { source: 'http://h/c' }] },
      },
    ),
    served,
  )
  expect(calls.map(({ url }) => url)).toEqual(['http://h/a', 'http://h/b', 'http://h/c'])
  expect(rendered.storage?.files).toEqual([file('/x', 'b'), file('/y', 'c')])
  expect(rendered.ignition.config).toBeUndefined()
})

test('replace drops everything before it', async () => {
  const child = config({ storage: { files: [file('/b', '2')] } })
  const parent = config(
    { storage: { files: [file('/a', '1')] } },
    { config: { replace: { source: dataUrl(child) } } },
  )
  expect((await render(parent)).rendered.storage?.files).toEqual([file('/b', '2')])
})

test('an error in a child has the place in the child', async () => {
  const child = '{\n "ignition": {"version": "3.4.0"},\n "storage": {"files": [{"path": "x"}]}\n}'
  const source = encodeDataUrl(Buffer.from(child))
  const error = await render(config({}, { config: { merge: [{ source }] } })).catch(
    (caught: unknown) => caught,
  )
  expect(error).toBeInstanceOf(ConfigInvalid)
  expect((error as ConfigInvalid).problems).toMatchObject([
    { path: '$.storage.files.0.path', line: 3, column: 33 },
  ])
})

test('two good configs that make a bad one are refused', async () => {
  const child = config({ storage: { files: [{ path: '/l/f' }] } })
  const parent = config(
    { storage: { links: [{ path: '/l', target: '/x' }] } },
    {
      config: { merge: [{ source: dataUrl(child) }] },
    },
  )
  await expect(render(parent)).rejects.toThrow(/file path includes link in config/)
})

test('configs that point to each other end', async () => {
  const served = { '/a': config({}, { config: { merge: [{ source: 'http://h/a' }] } }) }
  await expect(render(served['/a'], served)).rejects.toMatchObject({ code: 'CONFIG_LOOP' })
})

test('warnings of all configs are kept', async () => {
  const child = config({ color: 'red' })
  const { warnings } = await render(
    config({ shape: 'round' }, { config: { merge: [{ source: dataUrl(child) }] } }),
  )
  expect(warnings.map((line) => line.replace(/line.*:/, ''))).toEqual([
    'http://h/config: warning at $.shape,  unused key shape',
    'data URL: warning at $.color,  unused key color',
  ])
})

test('certificate authorities are kept as data URLs, and what is none is refused', async () => {
  const { certificate } = await createCa({ name: 'test', days: 1, now: new Date() })
  const source = encodeDataUrl(gzipSync(certificate))
  const headers = { httpHeaders: [], compression: 'gzip' }
  const security = { tls: { certificateAuthorities: [{ source, ...headers }] } }
  const { rendered } = await render(config({}, { security }))
  const kept = encodeDataUrl(Buffer.from(certificate))
  expect(rendered.ignition.security?.tls?.certificateAuthorities).toEqual([{ source: kept }])
  const none = { tls: { certificateAuthorities: [{ source: 'http://h/ca' }] } }
  await expect(render(config({}, { security: none }), { '/ca': { pem: 1 } })).rejects.toMatchObject({
    code: 'AUTHORITY_INVALID',
  })
})
