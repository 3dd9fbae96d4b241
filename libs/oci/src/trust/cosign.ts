import { createHash, verify } from 'node:crypto'
import { type Digest, ImageManifest } from '@kiln/schemas'
import { describeError, Fault } from '@kiln/service'
import * as z from 'zod'
import { readBody } from '../http.ts'
import { parseImageReference, type RegistryReference } from '../reference.ts'
import type { RegistryClient } from '../registry/registry-client.ts'
import type { TrustedKey } from './policy.ts'

/** What an image must have: a good signature by one of the keys. */
export type Requirement = { keys: TrustedKey[]; signedIdentity: 'repository' | 'any' }

/** cosign's simple signing payload (cosign, specs/SIGNATURE_SPEC.md). */
const Payload = z.looseObject({
  critical: z.looseObject({
    identity: z.looseObject({ 'docker-reference': z.string() }),
    image: z.looseObject({ 'docker-manifest-digest': z.string() }),
    type: z.literal('cosign container image signature'),
  }),
})

const payloadType = 'application/vnd.dev.cosign.simplesigning.v1+json'
const signatureAnnotation = 'dev.cosignproject.cosign/signature'
const payloadBytesMax = 64 << 10
const signaturesMax = 64

/**
 * Looks for a good signature beside an image in its repository, under the tag `sha256-<hex>.sig`, for any of the digests that stand for it: its
 * index and its own manifest. Answers the fingerprints of the keys that signed; none is a Fault that says what was found.
 */
export async function findSignature(input: {
  client: Pick<RegistryClient, 'manifest' | 'blob'>
  reference: RegistryReference
  digests: Digest[]
  requirement: Requirement
}): Promise<string[]> {
  const { client, reference, requirement } = input
  const where = `${reference.registry}/${reference.repository}`
  const refusals: string[] = []
  for (const digest of new Set(input.digests)) {
    const manifest = await readSignatures(client, digest, where)
    if (!manifest) continue
    const signed = new Set<string>()
    for (const layer of manifest.layers.slice(0, signaturesMax)) {
      const signature = layer.annotations?.[signatureAnnotation]
      if (layer.mediaType !== payloadType || signature === undefined) continue
      const payload = await readPayload(client, layer, where)
      const key = requirement.keys.find((each) => isSignedBy(payload, signature, each))
      const refusal = key ? whyNot(payload, { digest, reference, requirement }) : 'no trusted key made it'
      if (key && refusal === undefined) signed.add(key.fingerprint)
      else if (refusal !== undefined) refusals.push(refusal)
    }
    if (signed.size > 0) return [...signed]
  }
  if (refusals.length === 0)
    throw new Fault('IMAGE_NOT_SIGNED', `image ${where} (${input.digests[0]}) has no signature`, {
      remedy: 'sign it with cosign, or see kiln-runtime image trust --help',
    })
  const reasons = [...new Set(refusals)].join('; ')
  throw new Fault('IMAGE_SIGNATURE_REFUSED', `no signature of image ${where} is good: ${reasons}`, {
    remedy: 'kiln-runtime image trust list shows the keys that are trusted',
  })
}

async function readSignatures(
  client: Pick<RegistryClient, 'manifest'>,
  digest: Digest,
  where: string,
): Promise<ImageManifest | undefined> {
  try {
    const { bytes } = await client.manifest(`${digest.replace(':', '-')}.sig`)
    return ImageManifest.parse(JSON.parse(bytes.toString('utf8')))
  } catch (error) {
    if (error instanceof Fault && error.code === 'IMAGE_NOT_FOUND') return undefined
    if (error instanceof Fault) throw error
    throw new Fault('IMAGE_SIGNATURE_REFUSED', `the signatures of ${where} cannot be read`, { cause: error })
  }
}

async function readPayload(
  client: Pick<RegistryClient, 'blob'>,
  { digest, size }: { digest: Digest; size: number },
  where: string,
): Promise<Buffer> {
  if (size > payloadBytesMax) throw new Fault('IMAGE_TOO_LARGE', `a signature of ${where} has ${size} bytes`)
  const bytes = await readBody(await client.blob(digest), payloadBytesMax, `a signature of ${where}`)
  const actual = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  if (actual !== digest)
    throw new Fault('IMAGE_DIGEST_MISMATCH', `the signature ${digest} that came has digest ${actual}`)
  return bytes
}

function isSignedBy(payload: Buffer, signature: string, { key }: TrustedKey): boolean {
  return verify('sha256', payload, key, Buffer.from(signature, 'base64'))
}

/** A good signature may still be for something else. */
function whyNot(
  payload: Buffer,
  image: { digest: Digest; reference: RegistryReference; requirement: Requirement },
): string | undefined {
  let critical: z.output<typeof Payload>['critical']
  try {
    critical = Payload.parse(JSON.parse(payload.toString('utf8'))).critical
  } catch (error) {
    return `its payload is not cosign's (${describeError(error).slice(0, 200)})`
  }
  const digest = critical.image['docker-manifest-digest']
  if (digest !== image.digest) return `it is for ${digest.slice(0, 80)}`
  if (image.requirement.signedIdentity === 'any') return undefined
  const signedAs = critical.identity['docker-reference']
  const { registry, repository } = image.reference
  return repositoryOf(signedAs) === `${registry}/${repository}`
    ? undefined
    : `it is for the repository ${JSON.stringify(signedAs.slice(0, 200))}`
}

/** cosign writes Docker Hub under its older name. */
function repositoryOf(dockerReference: string): string | undefined {
  try {
    const parsed = parseImageReference(
      dockerReference.replace(/^index\.docker\.io\//, 'docker.io/'),
      undefined,
    )
    return parsed.kind === 'registry' ? `${parsed.registry}/${parsed.repository}` : undefined
  } catch {
    return undefined
  }
}
