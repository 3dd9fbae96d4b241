import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadSettings } from '@kiln/service'
import { expect, test } from 'vitest'
import { BootSettings, withDoubleDashes, withMatchboxVariables } from './settings.ts'

const root = mkdtempSync(join(tmpdir(), 'kiln-boot-settings-'))
const load = (argv: string[], env: Record<string, string> = {}) =>
  loadSettings(BootSettings, {
    ...{ app: 'boot', prefix: 'KILN_BOOT', root },
    argv: withDoubleDashes(argv),
    env: withMatchboxVariables(env),
  })

test('the defaults are those of matchbox', () => {
  expect(load([])).toMatchObject({
    address: { host: '127.0.0.1', port: 8080 },
    dataPath: '/var/lib/matchbox',
    assetsPath: '/var/lib/matchbox/assets',
    tlsNames: ['10.0.2.2', '127.0.0.1', 'localhost'],
    storeEndpoints: [],
  })
})

test("matchbox's variables and single dashes work, and our own variables win", () => {
  const env = { MATCHBOX_ADDRESS: '0.0.0.0:80', MATCHBOX_DATA_PATH: '/a', KILN_BOOT_DATA_PATH: '/b' }
  expect(load(['-assets-path='], env)).toMatchObject({
    address: { host: '0.0.0.0', port: 80 },
    dataPath: '/b',
    assetsPath: '',
  })
  expect(load(['-address', ':81'], env).address).toEqual({ host: '0.0.0.0', port: 81 })
  expect(load(['-address', '[::1]:81']).address).toEqual({ host: '::1', port: 81 })
})

test('what matchbox has and we have not is refused by name', () => {
  expect(() => load([], { MATCHBOX_RPC_ADDRESS: '0.0.0.0:8081' })).toThrow(/MATCHBOX_RPC_ADDRESS.*gRPC/)
  expect(() => load(['-key-ring-path=/x'])).toThrow(/key-ring-path/)
})

test('bad values are all named', () => {
  expect(() => load(['--address', 'x', '--data-path', 'relative', '--public-url', 'ftp://x'])).toThrow(
    /address: .*dataPath: .*publicUrl: /,
  )
})
