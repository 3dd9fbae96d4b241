import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import { ReleaseManifest } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** A signature is a few dozen characters; more is not one. */
const signatureCharsMax = 256
const manifestBytesMax = 256 * 1024

/** Ed25519 key that signs releases: `privateKey` is PKCS8 PEM, `publicKey` SPKI PEM. */
export type ReleaseKey = { privateKey: string; publicKey: string }

export function createReleaseKey(): ReleaseKey {
  const pair = generateKeyPairSync('ed25519')
  return {
    privateKey: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    publicKey: pair.publicKey.export({ type: 'spki', format: 'pem' }) as string,
  }
}

/** Public half (SPKI PEM) of a release key, for `/etc/kiln/release-keys`. */
export function releasePublicKey(privateKeyPem: string): string {
  return createPublicKey(releaseSignKey(privateKeyPem)).export({ type: 'spki', format: 'pem' }) as string
}

function releaseSignKey(pem: string) {
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw new Fault('RELEASE_KEY_INVALID', 'the release key is not a private key in PEM', { cause })
  }
}

/** Content of `manifest.json.sig`: base64 of the Ed25519 signature over exactly these bytes. */
export function signManifest(manifest: Uint8Array, privateKeyPem: string): string {
  const key = releaseSignKey(privateKeyPem)
  if (key.asymmetricKeyType !== 'ed25519') {
    throw new Fault(
      'RELEASE_KEY_INVALID',
      `a release is signed with an Ed25519 key, not ${key.asymmetricKeyType}`,
    )
  }
  return sign(null, manifest, key).toString('base64')
}

/**
 * The manifest behind a signature of any of the keys: signature first, then format, then expiry. Throws
 * `RELEASE_SIGNATURE_INVALID`, `RELEASE_FORMAT_UNKNOWN`, `RELEASE_MANIFEST_INVALID` or `RELEASE_EXPIRED`.
 */
export function verifyManifest(
  manifest: Uint8Array,
  signature: string,
  publicKeys: readonly string[],
  now: Date,
): ReleaseManifest {
  if (manifest.length > manifestBytesMax) {
    throw new Fault(
      'RELEASE_MANIFEST_INVALID',
      `manifest has ${manifest.length} bytes, limit ${manifestBytesMax}`,
    )
  }
  if (!signedByAny(manifest, signature, publicKeys)) {
    throw new Fault(
      'RELEASE_SIGNATURE_INVALID',
      `none of the ${publicKeys.length} release keys made the manifest's signature`,
    )
  }
  const parsed = parseManifest(manifest)
  if (Date.parse(parsed.expiresAt) <= now.getTime()) {
    throw new Fault('RELEASE_EXPIRED', `release ${parsed.version} expired at ${parsed.expiresAt}`)
  }
  return parsed
}

function signedByAny(manifest: Uint8Array, signature: string, publicKeys: readonly string[]): boolean {
  const text = signature.trim()
  if (text.length > signatureCharsMax || !/^[A-Za-z0-9+/]{86}==$/.test(text)) return false
  const bytes = Buffer.from(text, 'base64')
  return publicKeys.some((pem) => verify(null, manifest, releaseVerifyKey(pem), bytes))
}

function releaseVerifyKey(pem: string) {
  let key: ReturnType<typeof createPublicKey>
  try {
    key = createPublicKey(pem)
  } catch (cause) {
    throw new Fault('RELEASE_KEY_INVALID', 'a release key is not a public key in PEM', { cause })
  }
  if (key.asymmetricKeyType !== 'ed25519') {
    throw new Fault('RELEASE_KEY_INVALID', `a release key must be Ed25519, not ${key.asymmetricKeyType}`)
  }
  return key
}

function parseManifest(manifest: Uint8Array): ReleaseManifest {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(manifest))
  } catch (cause) {
    throw new Fault('RELEASE_MANIFEST_INVALID', 'manifest is not JSON', { cause })
  }
  const formatVersion = (value as { formatVersion?: unknown } | null)?.formatVersion
  if (formatVersion !== 1) {
    throw new Fault(
      'RELEASE_FORMAT_UNKNOWN',
      `manifest has format ${String(formatVersion)}, this release knows 1`,
    )
  }
  const result = ReleaseManifest.safeParse(value)
  if (!result.success) {
    const problems = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
    throw new Fault('RELEASE_MANIFEST_INVALID', `manifest is invalid: ${problems.slice(0, 8).join('; ')}`)
  }
  return result.data
}
