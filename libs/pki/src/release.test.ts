import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { createReleaseKey, releasePublicKey, signManifest, verifyManifest } from './release.ts'

const key = createReleaseKey()
const now = new Date('2026-06-01T00:00:00Z')
const manifest = {
  formatVersion: 1,
  version: '0.1.0',
  arch: 'x86_64',
  createdAt: '2026-01-01T00:00:00Z',
  expiresAt: '2027-01-01T00:00:00Z',
  usrRootHash: 'a'.repeat(64),
  usrHashOffset: 4096,
  kernelArguments: ['console=ttyS0'],
  parts: [{ name: 'usr.img', sizeBytes: 1, sha256: 'b'.repeat(64) }],
}
const bytes = (value: object): Buffer => Buffer.from(JSON.stringify(value))
const verified = (value: object, at = now, keys = [key.publicKey]) =>
  verifyManifest(bytes(value), signManifest(bytes(value), key.privateKey), keys, at)

function codeOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return (error as { code: string }).code
  }
  return 'none'
}

test('a manifest signed by one of the keys is returned with its unknown fields', () => {
  expect(
    verified({ ...manifest, extra: 1 }, now, [createReleaseKey().publicKey, key.publicKey]),
  ).toMatchObject({
    version: '0.1.0',
    extra: 1,
  })
  expect(releasePublicKey(key.privateKey)).toBe(key.publicKey)
})

test('a changed byte, another key, no key and a signature that is none are refused alike', () => {
  const signature = signManifest(bytes(manifest), key.privateKey)
  const changed = bytes({ ...manifest, version: '0.1.1' })
  expect(codeOf(() => verifyManifest(changed, signature, [key.publicKey], now))).toBe(
    'RELEASE_SIGNATURE_INVALID',
  )
  expect(codeOf(() => verified(manifest, now, [createReleaseKey().publicKey]))).toBe(
    'RELEASE_SIGNATURE_INVALID',
  )
  expect(codeOf(() => verified(manifest, now, []))).toBe('RELEASE_SIGNATURE_INVALID')
  for (const bad of ['', 'x', signature.slice(1), `${signature}AAAA`]) {
    expect(codeOf(() => verifyManifest(bytes(manifest), bad, [key.publicKey], now))).toBe(
      'RELEASE_SIGNATURE_INVALID',
    )
  }
})

test('a signed manifest that is expired, of a later format or malformed is refused with its own code', () => {
  expect(codeOf(() => verified(manifest, new Date('2027-01-01T00:00:00Z')))).toBe('RELEASE_EXPIRED')
  expect(codeOf(() => verified({ ...manifest, formatVersion: 2 }))).toBe('RELEASE_FORMAT_UNKNOWN')
  expect(codeOf(() => verified({ ...manifest, parts: [] }))).toBe('RELEASE_MANIFEST_INVALID')
  const twice = [...manifest.parts, ...manifest.parts]
  expect(codeOf(() => verified({ ...manifest, parts: twice }))).toBe('RELEASE_MANIFEST_INVALID')
  const path = [{ ...manifest.parts[0], name: '../etc/passwd' }]
  expect(codeOf(() => verified({ ...manifest, parts: path }))).toBe('RELEASE_MANIFEST_INVALID')
})

test('only an Ed25519 key signs or verifies a release', () => {
  const other = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const pem = other.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  expect(codeOf(() => signManifest(bytes(manifest), pem))).toBe('RELEASE_KEY_INVALID')
  const publicPem = other.publicKey.export({ type: 'spki', format: 'pem' }) as string
  expect(codeOf(() => verified(manifest, now, [publicPem]))).toBe('RELEASE_KEY_INVALID')
})
