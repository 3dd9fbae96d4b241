import { mkdtempSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodeDataUrl } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { fetchConfig } from './fetch-stage.ts'
import { parseOptions } from './options.ts'
import { createRun } from './run-of-machine.ts'

/** A proxy that answers every request with an empty config, and what it was asked. */
async function proxy() {
  const asked: string[] = []
  const server = createServer((query, reply) => {
    asked.push(query.url ?? '')
    reply.end('{"ignition": {"version": "3.4.0"}}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return { asked, url: `http://127.0.0.1:${port}`, close: () => server.close() }
}

/** Fetches a config that merges one child, with the real ports. */
async function fetched(ignition: object, env: Record<string, string>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-proxy-'))
  const config = join(folder, 'config.ign')
  const timeouts = { httpTotal: 2 }
  writeFileSync(config, JSON.stringify({ ignition: { version: '3.4.0', timeouts, ...ignition } }))
  const flags = ['--platform', 'file', '--stage', 'fetch', '--root', folder, '--config', config]
  await fetchConfig(createRun(parseOptions(flags, env), env, () => undefined))
}

const merge = (source: string): object => ({ config: { merge: [{ source }] } })
const child = 'http://child.invalid/a.ign'

test('a config without a proxy is fetched through that of the environment, one with its own through that', async () => {
  const [ofEnvironment, ofConfig] = [await proxy(), await proxy()]
  try {
    const env = { HTTP_PROXY: ofEnvironment.url }
    await fetched(merge(child), env)
    expect([ofEnvironment.asked, ofConfig.asked]).toEqual([[child], []])
    await fetched({ ...merge(child), proxy: { httpProxy: ofConfig.url } }, env)
    expect([ofEnvironment.asked, ofConfig.asked]).toEqual([[child], [child]])
    // A child that names a proxy has it for its own children.
    const named = { ignition: { version: '3.4.0', proxy: { httpProxy: ofConfig.url }, ...merge(child) } }
    await fetched(merge(encodeDataUrl(Buffer.from(JSON.stringify(named)))), env)
    expect([ofEnvironment.asked, ofConfig.asked]).toEqual([[child], [child, child]])
  } finally {
    ofEnvironment.close()
    ofConfig.close()
  }
})

test('what NO_PROXY names is asked directly', async () => {
  const ofEnvironment = await proxy()
  try {
    const env = { HTTP_PROXY: ofEnvironment.url, NO_PROXY: 'elsewhere,.invalid' }
    await expect(fetched(merge(child), env)).rejects.toMatchObject({ code: 'FETCH_TIMED_OUT' })
    expect(ofEnvironment.asked).toEqual([])
  } finally {
    ofEnvironment.close()
  }
})
