import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { encodeDataUrl } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { fetchConfig } from './fetch-stage.ts'
import { answering, simulatedRun } from './simulated-run.ts'

const file = (path: string, text: string): object => ({ path, contents: { source: `data:,${text}` } })
const config = (files: object[], ignition: object = {}): string =>
  JSON.stringify({ ignition: { version: '3.4.0', ...ignition }, storage: { files } })

/** Fetches with the distribution's configs in a folder of their own. */
async function fetching(given: { system: Record<string, string>; user?: string; cmdline?: string }) {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-system-'))
  for (const [name, text] of Object.entries(given.system)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
  const own = join(folder, 'own.ign')
  writeFileSync(own, given.user ?? '')
  const http = answering({ '/argument': { status: 200, body: config([file('/who', 'argument')]) } })
  const { run, said } = simulatedRun({ http, ...(given.cmdline ? { cmdline: given.cmdline } : {}) })
  const read: string[] = []
  const { config: rendered, userConfigProvided } = await fetchConfig({
    ...run,
    options: { ...run.options, systemConfigDir: folder, platformFile: own },
    fetcher: {
      ...run.fetcher,
      configRead: ({ source, referenced }) => {
        read.push(`${referenced ? 'referenced ' : ''}${source.replace(/.*\//, '')}`)
      },
    },
  })
  const files = (rendered.storage?.files ?? []).map(
    ({ path, contents }) => `${path} ${contents?.source?.replace('data:,', '')}`,
  )
  return { files, userConfigProvided, read, said }
}

test('base configs are merged by name, the platform ones over them, and the user over all', async () => {
  const { files, userConfigProvided, read } = await fetching({
    system: {
      'base.d/20-b.ign': config([file('/a', 'b'), file('/b', 'b')]),
      'base.d/10-a.ign': config([file('/a', 'a'), file('/x', 'a')]),
      'base.d/notes.txt': 'no config',
      'base.platform.d/file/30-c.ign': config([file('/b', 'c'), file('/c', 'c')]),
      'base.platform.d/other/40-d.ign': config([file('/d', 'd')]),
    },
    user: config([file('/c', 'user')], {
      config: { merge: [{ source: encodeDataUrl(Buffer.from(config([]))) }] },
    }),
  })
  expect(files).toEqual(['/a b', '/x a', '/b c', '/c user'])
  expect(userConfigProvided).toBe(true)
  expect(read).toEqual(['10-a.ign', '20-b.ign', '30-c.ign', 'own.ign', 'referenced data URL'])
})

test('an empty config of the platform leaves the base configs, and is said', async () => {
  const { files, userConfigProvided, said } = await fetching({
    system: { 'base.d/a.ign': config([file('/a', 'a')]) },
  })
  expect(files).toEqual(['/a a'])
  expect(userConfigProvided).toBe(false)
  expect(said.join('\n')).toContain('no config was found')
})

test('user.ign stands in for the platform, and a kernel argument for both', async () => {
  const given = {
    system: { 'user.ign': config([file('/who', 'user.ign')]) },
    user: config([file('/who', 'platform')]),
  }
  expect((await fetching(given)).files).toEqual(['/who user.ign'])
  const cmdline = 'ignition.config.url=http://h/argument'
  expect((await fetching({ ...given, cmdline })).files).toEqual(['/who argument'])
})

test('configs that are good alone and bad together are refused', async () => {
  const given = {
    system: {
      'base.d/a.ign': JSON.stringify({
        ignition: { version: '3.4.0' },
        storage: { links: [{ path: '/l', target: '/t' }] },
      }),
    },
    user: config([file('/l/below', 'x')]),
  }
  await expect(fetching(given)).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
})
