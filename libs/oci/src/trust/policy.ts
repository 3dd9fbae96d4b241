import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { assert, atomicWrite, Fault } from '@kiln/service'
import * as z from 'zod'
import { parseImageReference } from '../reference.ts'

const Rule = z.discriminatedUnion('policy', [
  z.strictObject({ policy: z.literal('accept') }),
  z.strictObject({ policy: z.literal('refuse') }),
  z.strictObject({
    policy: z.literal('signed'),
    /** Public keys in PEM; one good signature suffices. With none left, nothing is accepted. */
    keys: z.array(z.string().max(4096)).max(64),
    /** Whether the signature must be for the repository that is asked for, or may be for another with the same content. */
    signedIdentity: z.enum(['repository', 'any']).default('repository'),
  }),
])
export type Rule = z.output<typeof Rule>

const Policy = z.strictObject({
  formatVersion: z.literal(1),
  /** For what no prefix is for. */
  default: Rule,
  prefixes: z.record(z.string().max(512), Rule).default({}),
})
/** Which images may be used: the rule of the longest prefix counts. */
export type Policy = z.output<typeof Policy>

export const noPolicy: Policy = { formatVersion: 1, default: { policy: 'accept' }, prefixes: {} }

/** Images that no registry signs: a rule for one of these kinds can accept or refuse it. */
const localKinds = ['oci:', 'docker-archive:', 'oci-archive:', 'boot:', 'http:', 'https:']

/** Reads a policy; without the file everything is accepted, with one that cannot be read nothing is. */
export async function readPolicy(path: string): Promise<Policy> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new Fault('IMAGE_POLICY_FILE', `cannot read ${path}`, { cause: error })
  })
  if (text === undefined) return noPolicy
  try {
    const policy = Policy.parse(JSON.parse(text))
    for (const prefix of Object.keys(policy.prefixes)) readPrefix(prefix)
    for (const rule of [policy.default, ...Object.values(policy.prefixes)]) trustedKeys(rule)
    return policy
  } catch (cause) {
    throw new Fault('IMAGE_POLICY_FILE', `${path} is not as it should be`, { cause })
  }
}

export async function writePolicy(path: string, policy: Policy): Promise<void> {
  await atomicWrite(path, `${JSON.stringify(Policy.parse(policy), undefined, 2)}\n`)
}

/** The rule for an image as a pod names it, and the prefix that it is of; undefined for the default. */
export function ruleFor(
  policy: Policy,
  reference: string,
): { rule: Rule; prefix: string | undefined; isLocal: boolean } {
  const places = placesOf(reference)
  const prefix = places.find((place) => Object.hasOwn(policy.prefixes, place))
  const rule = prefix === undefined ? policy.default : policy.prefixes[prefix]!
  return { rule, prefix, isLocal: places.some(isLocalKind) }
}

/** `host/a/b`, `host/a`, `host` of an image in a registry, or the kind of another. */
function placesOf(reference: string): string[] {
  const kind = localKinds.find((each) => reference.startsWith(each))
  if (kind !== undefined) return [kind]
  const parsed = parseImageReference(reference, undefined)
  assert(parsed.kind === 'registry', 'every other kind is a local one')
  const parts = `${parsed.registry}/${parsed.repository}`.split('/')
  return parts.map((_, at) => parts.slice(0, parts.length - at).join('/'))
}

/** Checks a prefix: a registry's host, what is below it at a slash, or a kind such as `oci:`. */
export function readPrefix(text: string): string {
  if (localKinds.includes(text)) return text
  const [host = '', ...path] = text.split('/')
  const isHost = /[.:]/.test(host) || host === 'localhost'
  const isValid = (): boolean => {
    try {
      const parsed = parseImageReference(path.length > 0 ? text : `${host}/x`, undefined)
      return parsed.kind === 'registry' && parsed.pin === undefined && parsed.registry === host
    } catch {
      return false
    }
  }
  const hasTag = path.at(-1)?.includes(':') ?? false
  if (isHost && !hasTag && isValid()) return text
  throw new Fault('IMAGE_PREFIX_INVALID', `${JSON.stringify(text)} is no prefix of images`, {
    remedy: `write HOST, HOST/PATH (Docker Hub is docker.io, its own images docker.io/library), or one of ${localKinds.join(' ')}`,
  })
}

export const isLocalKind = (prefix: string): boolean => localKinds.includes(prefix)

export type TrustedKey = { key: KeyObject; fingerprint: string; pem: string }

/** A public key in PEM as cosign and openssl write it; ECDSA on P-256 is the one kind there is. */
export function readPublicKey(pem: string): TrustedKey {
  let key: KeyObject
  try {
    if (/PRIVATE KEY/.test(pem)) throw new Error('it is a private key')
    key = createPublicKey(pem)
  } catch (cause) {
    throw new Fault('IMAGE_KEY_INVALID', 'this is no public key in PEM', { cause })
  }
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new Fault('IMAGE_KEY_INVALID', 'only ECDSA keys on the curve P-256 are supported', {
      remedy: 'cosign generate-key-pair makes such keys',
    })
  const der = key.export({ type: 'spki', format: 'der' })
  return {
    key,
    fingerprint: `sha256:${createHash('sha256').update(der).digest('hex')}`,
    pem: key.export({ type: 'spki', format: 'pem' }).toString(),
  }
}

export const trustedKeys = (rule: Rule): TrustedKey[] =>
  rule.policy === 'signed' ? rule.keys.map(readPublicKey) : []

/** The policy with another rule for a prefix, or for all else; without a rule the prefix is forgotten. */
export function withRule(policy: Policy, prefix: string | undefined, rule: Rule | undefined): Policy {
  if (prefix === undefined) return { ...policy, default: rule ?? noPolicy.default }
  const { [prefix]: _old, ...others } = policy.prefixes
  return { ...policy, prefixes: rule ? { ...others, [prefix]: rule } : others }
}
