import { generateKeyPairSync } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseImageReference } from '../reference.ts'
import { pullImage } from '../registry/pull.ts'
import { noRegistries } from '../registry/registries.ts'
import { type StubRegistry, startStubRegistry } from '../registry/stub-registry.ts'
import {
  noPolicy,
  type Policy,
  type Rule,
  readPolicy,
  readPrefix,
  readPublicKey,
  ruleFor,
  withRule,
  writePolicy,
} from './policy.ts'

let registry: StubRegistry
beforeEach(async () => {
  registry = await startStubRegistry()
})
afterEach(() => registry.close())

const newFolder = (): string => mkdtempSync(join(tmpdir(), 'kiln-trust-'))
const newPair = () => generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
const pemOf = ({ publicKey }: ReturnType<typeof newPair>): string =>
  publicKey.export({ type: 'spki', format: 'pem' }).toString()
const [ours, other] = [newPair(), newPair()]
const trusted = readPublicKey(pemOf(ours))
const content = { layers: [[{ path: 'a', content: 'one' }]], config: {} }

function pull(
  folder: string,
  more: { signedIdentity?: 'any'; text?: string; mirrors?: Record<string, string[]> } = {},
) {
  const reference = parseImageReference(more.text ?? `${registry.host}/library/x:v1`, undefined)
  if (reference.kind !== 'registry') throw new Error('no image of a registry')
  return pullImage({
    reference,
    folder,
    architecture: 'amd64',
    registries: { ...noRegistries, mirrors: more.mirrors ?? {} },
    authFile: { auths: {}, credHelpers: {} },
    bytesMax: 1e9,
    signal: new AbortController().signal,
    backoffMs: 1,
    requirement: { keys: [trusted], signedIdentity: more.signedIdentity ?? 'repository' },
  })
}

/** Refused, and before anything but manifests and signatures was asked for. */
async function expectRefused(code: string, message: RegExp, layers: string[]): Promise<void> {
  const folder = join(newFolder(), 'blobs')
  const error = await pull(folder).then(
    () => undefined,
    (thrown: Error) => thrown,
  )
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) })
  expect(existsSync(folder) ? readdirSync(folder) : []).toEqual([])
  for (const layer of layers) expect(registry.seen.some(({ path }) => path.endsWith(layer))).toBe(false)
}

test('an image without a signature is refused before anything of it is fetched', async () => {
  const { layers } = await registry.add(content, 'v1')
  await expectRefused('IMAGE_NOT_SIGNED', /has no signature/, layers)
})

test('a signature by another key is refused, and one by the right key beside it is found', async () => {
  const { manifestDigest, layers } = await registry.add(content, 'v1')
  registry.sign(manifestDigest, other.privateKey)
  await expectRefused('IMAGE_SIGNATURE_REFUSED', /no trusted key made it/, layers)
  registry.sign(manifestDigest, ours.privateKey)
  const source = await pull(newFolder())
  expect(source.signedBy).toEqual([trusted.fingerprint])
})

describe('a signature by the right key that is for something else is refused', () => {
  test('another image', async () => {
    const before = await registry.add({ ...content, config: { Cmd: ['old'] } }, 'old')
    const { manifestDigest, layers } = await registry.add(content, 'v1')
    registry.sign(manifestDigest, ours.privateKey, ({ critical }) => {
      critical.image['docker-manifest-digest'] = before.manifestDigest
    })
    await expectRefused('IMAGE_SIGNATURE_REFUSED', new RegExp(`it is for ${before.manifestDigest}`), layers)
  })

  test('another repository, unless the rule says that this is fine', async () => {
    const { manifestDigest, layers } = await registry.add(content, 'v1')
    registry.sign(manifestDigest, ours.privateKey, ({ critical }) => {
      critical.identity['docker-reference'] = `${registry.host}/library/other`
    })
    await expectRefused('IMAGE_SIGNATURE_REFUSED', /for the repository/, layers)
    expect((await pull(newFolder(), { signedIdentity: 'any' })).signedBy).toEqual([trusted.fingerprint])
  })

  test('another kind of payload', async () => {
    const { manifestDigest, layers } = await registry.add(content, 'v1')
    registry.sign(manifestDigest, ours.privateKey, ({ critical }) => {
      critical.type = 'something else'
    })
    await expectRefused('IMAGE_SIGNATURE_REFUSED', /payload is not cosign's/, layers)
  })
})

test('a payload or a signature that was changed is refused', async () => {
  const { manifestDigest, layers } = await registry.add(content, 'v1')
  registry.sign(manifestDigest, ours.privateKey)
  const tag = `${manifestDigest.replace(':', '-')}.sig`
  const manifest = JSON.parse(Buffer.from(registry.manifests.get(tag)!.bytes).toString())
  const good = manifest.layers[0].annotations['dev.cosignproject.cosign/signature'] as string
  for (const signature of [
    '',
    'AAAA',
    good.slice(0, -8),
    Buffer.from(good, 'base64').reverse().toString('base64'),
  ]) {
    manifest.layers[0].annotations['dev.cosignproject.cosign/signature'] = signature
    registry.manifests.set(tag, {
      ...registry.manifests.get(tag)!,
      bytes: Buffer.from(JSON.stringify(manifest)),
    })
    await expectRefused('IMAGE_SIGNATURE_REFUSED', /no trusted key/, layers)
  }
  const payload = manifest.layers[0].digest as string
  registry.blobs.set(payload, Buffer.concat([registry.blobs.get(payload)!, Buffer.from(' ')]))
  await expectRefused('IMAGE_DIGEST_MISMATCH', /signature/, layers)
  registry.manifests.set(tag, { bytes: Buffer.from('{"layers": 1}'), mediaType: 'application/json' })
  await expectRefused('IMAGE_SIGNATURE_REFUSED', /cannot be read/, layers)
})

test('the signature of an index is for the image of this architecture in it', async () => {
  const { manifestDigest } = await registry.add(content, 'amd')
  const index = {
    schemaVersion: 2,
    manifests: [
      {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: manifestDigest,
        size: 1,
        platform: { os: 'linux', architecture: 'amd64' },
      },
    ],
  }
  registry.manifests.set('v1', { bytes: Buffer.from(JSON.stringify(index)), mediaType: 'application/json' })
  await expect(pull(newFolder())).rejects.toMatchObject({ code: 'IMAGE_NOT_SIGNED' })
  const { createHash } = await import('node:crypto')
  const indexDigest = `sha256:${createHash('sha256').update(JSON.stringify(index)).digest('hex')}`
  registry.sign(indexDigest, ours.privateKey)
  expect((await pull(newFolder())).digest).toBe(manifestDigest)
})

test('a mirror that lacks the signature is passed over, and a registry that fails is no unsigned image', async () => {
  const { manifestDigest } = await registry.add(content, 'v1')
  const origin = await startStubRegistry()
  try {
    await origin.add(content, 'v1')
    origin.sign(manifestDigest, ours.privateKey)
    const source = await pull(newFolder(), {
      text: `${origin.host}/library/x:v1`,
      mirrors: { [origin.host]: [`http://${registry.host}`] },
    })
    expect(source.signedBy).toEqual([trusted.fingerprint])
  } finally {
    origin.close()
  }
  registry.intercept = (request, response) => {
    if (!request.url?.endsWith('.sig')) return false
    response.writeHead(503).end()
    return true
  }
  await expect(pull(newFolder())).rejects.toMatchObject({ code: 'IMAGE_DOWNLOAD_FAILED' })
})

test('the rule of the longest prefix counts, prefixes end at slashes, and local kinds have their own', () => {
  const signed: Rule = { policy: 'signed', keys: [pemOf(ours)], signedIdentity: 'repository' }
  const policy: Policy = {
    formatVersion: 1,
    default: { policy: 'refuse' },
    prefixes: {
      'reg.example': { policy: 'accept' },
      'reg.example/team': signed,
      'docker.io/library': { policy: 'accept' },
      'oci:': { policy: 'accept' },
    },
  }
  const prefix = (reference: string) => ruleFor(policy, reference).prefix
  expect(prefix('reg.example/team/app:v1')).toBe('reg.example/team')
  expect(prefix(`docker://reg.example/team@sha256:${'a'.repeat(64)}`)).toBe('reg.example/team')
  expect(prefix('reg.example/teams/app')).toBe('reg.example')
  expect(prefix('busybox')).toBe('docker.io/library')
  expect(prefix('me/busybox')).toBe(undefined)
  expect(prefix('oci:/x')).toBe('oci:')
  expect(ruleFor(policy, 'boot://x.tar').rule).toEqual({ policy: 'refuse' })
  expect(ruleFor(noPolicy, 'boot://x.tar').rule).toEqual({ policy: 'accept' })
  expect(ruleFor(withRule(policy, 'reg.example/team', undefined), 'reg.example/team/app').prefix).toBe(
    'reg.example',
  )
  for (const good of ['reg.example', 'reg.example:5000/a/b', 'localhost/x', 'boot:', '127.0.0.1:80'])
    expect(readPrefix(good)).toBe(good)
  for (const bad of [
    '',
    '*',
    'busybox',
    'me/busybox',
    'reg.example/',
    'reg.example/a:v1',
    'reg.example/A',
    'oci:/x',
  ])
    expect(() => readPrefix(bad), bad).toThrow(/is no prefix/)
})

test('a policy is written and read back; one that cannot be read is a fault, never an open door', async () => {
  const path = join(newFolder(), 'policy.json')
  expect(await readPolicy(path)).toEqual(noPolicy)
  const policy = withRule(noPolicy, 'reg.example', {
    policy: 'signed',
    keys: [pemOf(ours)],
    signedIdentity: 'any',
  })
  await writePolicy(path, policy)
  expect(await readPolicy(path)).toEqual(policy)
  for (const bad of [
    '',
    '{}',
    '{"formatVersion":1,"default":{"policy":"perhaps"}}',
    '{"formatVersion":1,"default":{"policy":"signed","keys":["x"]}}',
    '{"formatVersion":1,"default":{"policy":"accept"},"prefixes":{"x":{"policy":"accept"}}}',
    '{"formatVersion":1,"default":{"policy":"accept"},"extra":1}',
  ]) {
    writeFileSync(path, bad)
    await expect(readPolicy(path), bad).rejects.toMatchObject({ code: 'IMAGE_POLICY_FILE' })
  }
})

test('keys of other kinds are refused, and the fingerprint is that of the key itself', () => {
  const ed25519 = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const p384 = generateKeyPairSync('ec', { namedCurve: 'secp384r1' }).publicKey.export({
    type: 'spki',
    format: 'pem',
  })
  const secret = ours.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  for (const pem of [ed25519, p384.toString(), secret, 'x'])
    expect(() => readPublicKey(pem)).toThrowError(expect.objectContaining({ code: 'IMAGE_KEY_INVALID' }))
  // openssl ec -pubin -outform DER | sha256sum
  const pem = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----`
  expect(readPublicKey(pem).fingerprint).toBe(
    'sha256:5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3',
  )
})
