import { createHmac, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { expect, test } from 'vitest'
import { createJwt, type JwtMethod, type JwtSettings, jwtMethods } from './jwt.ts'

const files = new Map<string, Buffer>()
function save(
  name: string,
  { publicKey, privateKey }: { publicKey: KeyObject; privateKey: KeyObject },
): void {
  files.set(`${name}.pub`, Buffer.from(publicKey.export({ type: 'spki', format: 'pem' })))
  files.set(`${name}.key`, Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' })))
}
save('rsa', generateKeyPairSync('rsa', { modulusLength: 2048 }))
save('rsa-other', generateKeyPairSync('rsa', { modulusLength: 2048 }))
save('ES256', generateKeyPairSync('ec', { namedCurve: 'prime256v1' }))
save('ES384', generateKeyPairSync('ec', { namedCurve: 'secp384r1' }))
save('ES512', generateKeyPairSync('ec', { namedCurve: 'secp521r1' }))
save('EdDSA', generateKeyPairSync('ed25519'))
files.set('secret.key', Buffer.from('a long secret of this test'))

const keyName = (method: JwtMethod): string =>
  /^[RP]S/.test(method) ? 'rsa' : method.startsWith('HS') ? 'secret' : method

function settingsOf(method: JwtMethod, more: Partial<JwtSettings> = {}): JwtSettings {
  const name = keyName(method)
  return {
    kind: 'jwt',
    method,
    publicKeyFile: name === 'secret' ? '' : `${name}.pub`,
    privateKeyFile: `${name}.key`,
    ttlMs: 60_000,
    ...more,
  }
}

let nowMs = 1_700_000_000_000
const jwtOf = (settings: JwtSettings) =>
  createJwt(settings, {
    readFile: (path) => files.get(path) ?? fileMissing(path),
    nowMs: () => nowMs,
  })
function fileMissing(path: string): never {
  throw new Error(`no ${path}`)
}
const alice = { name: 'alice', revision: 7 }
const partOf = (token: string, at: number) =>
  JSON.parse(Buffer.from(token.split('.')[at]!, 'base64url').toString())

test('each method signs what it verifies, with the claims of etcd', () => {
  for (const method of jwtMethods) {
    const token = jwtOf(settingsOf(method)).issue(alice)!
    expect(partOf(token, 0)).toEqual({ alg: method, typ: 'JWT' })
    expect(partOf(token, 1)).toEqual({ username: 'alice', revision: 7, exp: nowMs / 1000 + 60 })
    expect(jwtOf(settingsOf(method)).identify(token)).toEqual(alice)
  }
})

test('a token of another key, with another method, changed, or over says nothing', () => {
  for (const method of jwtMethods) {
    const jwt = jwtOf(settingsOf(method))
    const token = jwt.issue(alice)!
    const [head, , signature] = token.split('.')
    const claims = Buffer.from(JSON.stringify({ ...partOf(token, 1), username: 'root' })).toString(
      'base64url',
    )
    expect(jwt.identify(`${head}.${claims}.${signature}`)).toBeUndefined()
    expect(jwt.identify(token.slice(0, -4))).toBeUndefined()
    expect(jwt.identify(`${token}.x`)).toBeUndefined()
  }
  const rsa = jwtOf(settingsOf('RS256'))
  const other = settingsOf('RS256', { publicKeyFile: 'rsa-other.pub', privateKeyFile: 'rsa-other.key' })
  expect(rsa.identify(jwtOf(other).issue(alice)!)).toBeUndefined()
  expect(rsa.identify(jwtOf(settingsOf('RS512')).issue(alice)!)).toBeUndefined()
  expect(rsa.identify('')).toBeUndefined()
  expect(rsa.identify('a.b.c')).toBeUndefined()

  const token = rsa.issue(alice)!
  expect(rsa.identify(token)).toEqual(alice)
  nowMs += 60_000
  expect(rsa.identify(token)).toBeUndefined()
  nowMs -= 60_000
})

test('a public key is no secret to sign with, and no method is none', () => {
  const rsa = jwtOf(settingsOf('RS256'))
  const unsigned = (alg: string): string =>
    [
      { alg, typ: 'JWT' },
      { username: 'root', revision: 1, exp: nowMs },
    ]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
  const signature = createHmac('sha256', files.get('rsa.pub')!).update(unsigned('HS256')).digest('base64url')
  expect(rsa.identify(`${unsigned('HS256')}.${signature}`)).toBeUndefined()
  expect(rsa.identify(`${unsigned('none')}.`)).toBeUndefined()
})

test('with a public key alone tokens are believed but not given', () => {
  const verifier = jwtOf(settingsOf('ES256', { privateKeyFile: '' }))
  expect(verifier.issue(alice)).toBeUndefined()
  expect(verifier.identify(jwtOf(settingsOf('ES256')).issue(alice)!)).toEqual(alice)
  const signer = jwtOf(settingsOf('ES256', { publicKeyFile: '' }))
  expect(signer.identify(signer.issue(alice)!)).toEqual(alice)
})

test('keys that are missing, unreadable, no pair or of another kind are told at the start', () => {
  const start = (method: JwtMethod, more: Partial<JwtSettings>) => () => jwtOf(settingsOf(method, more))
  expect(start('RS256', { publicKeyFile: '', privateKeyFile: '' })).toThrow('needs pub-key or priv-key')
  expect(start('HS256', { privateKeyFile: '' })).toThrow('needs priv-key')
  expect(start('RS256', { publicKeyFile: 'rsa-other.pub' })).toThrow('no pair')
  expect(start('RS256', { publicKeyFile: 'gone.pub' })).toThrow('cannot read gone.pub')
  expect(start('RS256', { publicKeyFile: 'secret.key' })).toThrow('no key in PEM')
  expect(start('ES256', { publicKeyFile: 'ES384.pub', privateKeyFile: 'ES384.key' })).toThrow(
    'not one for ES256',
  )
  expect(start('EdDSA', { publicKeyFile: 'rsa.pub', privateKeyFile: 'rsa.key' })).toThrow('not one for EdDSA')
})
