import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { withAddress } from '../commands/kv-program.ts'
import { milliseconds, storeAddress } from './settings.ts'
import { safeText } from './text.ts'
import { parseTxn } from './txn-text.ts'

test('flags come before the environment, and that before the cluster of kiln up', () => {
  const home = mkdtempSync(join(tmpdir(), 'kiln-cli-kv-'))
  try {
    const none = { HOME: home }
    expect(storeAddress({}, none)).toMatchObject({ endpoints: ['http://127.0.0.1:2379'], timeoutMs: 5000 })
    expect(() => storeAddress({ state: join(home, 'elsewhere') }, none)).toThrow('no cluster in')
    const state = join(home, '.local/state/kiln/default')
    mkdirSync(state, { recursive: true })
    writeFileSync(join(state, 'lab.json'), JSON.stringify(lab))
    expect(storeAddress({}, none)).toMatchObject({
      endpoints: ['https://127.0.0.1:4001'],
      cert: join(state, 'boot/pki/admin.pem'),
    })
    const environment = { ...none, ETCDCTL_ENDPOINTS: 'a:1, http://b:2', ETCDCTL_CACERT: '/ca' }
    expect(storeAddress({}, environment)).toMatchObject({
      endpoints: ['https://a:1', 'http://b:2'],
      cacert: '/ca',
    })
    expect(storeAddress({ endpoints: 'c:3', cacert: '/other' }, environment)).toMatchObject({
      endpoints: ['https://c:3'],
      cacert: '/other',
    })
    expect(withAddress(['snapshot', 'save', 'f'], none)).toEqual(
      expect.arrayContaining(['snapshot', 'save', 'f', '--endpoints', 'https://127.0.0.1:4001', '--cacert']),
    )
    expect(withAddress(['snapshot', 'save', 'f', '--endpoints=x'], none)).toHaveLength(4)
    expect(withAddress(['snapshot', 'status', 'f'], none)).toHaveLength(3)
  } finally {
    rmSync(home, { recursive: true })
  }
})

test('certificates are always checked', () => {
  expect(() => storeAddress({}, { HOME: '/', ETCDCTL_INSECURE_SKIP_TLS_VERIFY: 'true' })).toThrow(
    'always checked',
  )
})

test('durations are those of Go', () => {
  expect(['5s', '1m30s', '250ms', '7', '1.5h'].map(milliseconds)).toEqual([
    5000, 90_000, 250, 7000, 5_400_000,
  ])
  expect(() => milliseconds('soon')).toThrow('not a duration')
})

test('text for a terminal cannot control it and says which bytes there were', () => {
  expect(safeText(Buffer.from('grün\n\\'))).toBe('grün\\n\\\\')
  expect(safeText(Buffer.from('\u001b]0;\u202eevil'))).toBe('\\x1b]0;\\u202eevil')
  expect(safeText(Buffer.from([0x41, 0xff, 0x0a]))).toBe('A\\xff\\n')
})

test('a transaction has three parts, and quotes as in Go', () => {
  const { compare, success, failure } = parseTxn(
    'val("a b") != "x\\x00"\nlease("k") = 1f\n\nput k \'as it is\\n\'\ndel p --prefix\n\nget k z\n',
  )
  expect(compare).toHaveLength(2)
  expect(Buffer.from(compare[0]!.key).toString()).toBe('a b')
  expect(compare[0]!.targetUnion).toMatchObject({ $case: 'value', value: Buffer.from('x\0') })
  expect(compare[1]!.targetUnion).toEqual({ $case: 'lease', value: 0x1fn })
  expect(success.map(({ request }) => request!.$case)).toEqual(['requestPut', 'requestDeleteRange'])
  expect(success[0]!.request!.value).toMatchObject({ value: Buffer.from('as it is\\n') })
  expect(failure).toHaveLength(1)
  for (const bad of ['mod("k") = "x"', 'mod(k) = "1"', 'mod("k") ~ "1"'])
    expect(() => parseTxn(`${bad}\n`), bad).toThrow()
  for (const bad of ['put k', 'get', 'del a b c', 'fetch k', 'put k "open', 'get k --lease 1'])
    expect(() => parseTxn(`\n${bad}\n`), bad).toThrow()
})

const lab = {
  formatVersion: 1,
  kind: 'embedded',
  createdAt: 'now',
  version: '0.1.0',
  memoryMiB: 1,
  cpus: 1,
  accelerator: 'tcg',
  bootPort: 1,
  bootTlsPort: 2,
  machines: [
    { name: 'node1', uuid: 'u', bootMac: 'm', clusterMac: 'm', address: '10.0.0.1', storePort: 4001 },
  ],
  complete: true,
}
