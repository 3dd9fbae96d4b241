import {
  constants,
  createHmac,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign,
  timingSafeEqual,
  verify,
} from 'node:crypto'
import type { Identity } from '@kiln/mvcc'
import { Fault } from '@kiln/service'

/** The `alg` names that tokens may have (RFC 7518 section 3, RFC 8037). */
export const jwtMethods = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'HS256', 'HS384', 'HS512'],
] as const
export type JwtMethod = (typeof jwtMethods)[number]

export type JwtSettings = {
  kind: 'jwt'
  method: JwtMethod
  /** Files; for HS the private one is the secret. */
  publicKeyFile: string
  privateKeyFile: string
  ttlMs: number
}

/** Tokens that say who somebody is and are believed for their signature. */
export type Jwt = {
  /** Undefined where only a public key is given. */
  issue(who: Identity): string | undefined
  identify(token: string): Identity | undefined
}

/** Verified tokens that are remembered: a signature costs more than a request. */
const verifiedMax = 1000
const curves: Record<string, string> = { ES256: 'prime256v1', ES384: 'secp384r1', ES512: 'secp521r1' }

/** Signs and verifies JSON Web Tokens (RFC 7519) with the claims of etcd: `username`, `revision`, `exp`. */
export function createJwt(
  settings: JwtSettings,
  ports: { readFile: (path: string) => Buffer; nowMs: () => number },
): Jwt {
  const { method, ttlMs } = settings
  const { signBytes, verifyBytes } = signerOf(settings, ports.readFile)
  const head = encode({ alg: method, typ: 'JWT' })
  const verified = new Map<string, { who: Identity; endsAtMs: number }>()

  const read = (token: string): { who: Identity; endsAtMs: number } | undefined => {
    const [header, claims, signature, ...rest] = token.split('.')
    if (header === undefined || claims === undefined || signature === undefined || rest.length > 0)
      return undefined
    if (decode(header)?.['alg'] !== method) return undefined
    if (!verifyBytes(Buffer.from(`${header}.${claims}`), Buffer.from(signature, 'base64url')))
      return undefined
    const { username, revision, exp } = decode(claims) ?? {}
    if (typeof username !== 'string' || typeof revision !== 'number' || typeof exp !== 'number')
      return undefined
    return { who: { name: username, revision }, endsAtMs: exp * 1000 }
  }
  return {
    issue: ({ name, revision }) => {
      if (!signBytes) return undefined
      const exp = Math.floor((ports.nowMs() + ttlMs) / 1000)
      const body = `${head}.${encode({ exp, revision, username: name })}`
      return `${body}.${signBytes(Buffer.from(body)).toString('base64url')}`
    },
    identify: (token) => {
      let found = verified.get(token)
      if (!found) {
        found = read(token)
        if (!found) return undefined
        if (verified.size >= verifiedMax) verified.delete(verified.keys().next().value!)
        verified.set(token, found)
      }
      if (found.endsAtMs > ports.nowMs()) return found.who
      verified.delete(token)
      return undefined
    },
  }
}

type Signer = {
  signBytes: ((body: Buffer) => Buffer) | undefined
  verifyBytes: (body: Buffer, signature: Buffer) => boolean
}

function signerOf(settings: JwtSettings, readFile: (path: string) => Buffer): Signer {
  const { method } = settings
  const digest = `sha${method.slice(2)}`
  if (method.startsWith('HS')) {
    if (!settings.privateKeyFile) throw keyFault(`${method} needs priv-key`)
    const secret = load(settings.privateKeyFile, readFile)
    const signBytes = (body: Buffer): Buffer => createHmac(digest, secret).update(body).digest()
    return {
      signBytes,
      verifyBytes: (body, signature) => {
        const right = signBytes(body)
        return right.length === signature.length && timingSafeEqual(right, signature)
      },
    }
  }
  const { publicKey, privateKey } = keysOf(settings, readFile)
  const algorithm = method === 'EdDSA' ? null : digest
  const pss = method.startsWith('PS')
  const options = (key: KeyObject, saltLength: number) => ({
    key,
    ...(pss ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength } : {}),
    ...(method.startsWith('ES') ? { dsaEncoding: 'ieee-p1363' as const } : {}),
  })
  const signing = privateKey && options(privateKey, constants.RSA_PSS_SALTLEN_DIGEST)
  const verifying = options(publicKey, constants.RSA_PSS_SALTLEN_AUTO)
  return {
    signBytes: signing && ((body) => sign(algorithm, body, signing)),
    verifyBytes: (body, signature) => verify(algorithm, body, verifying, signature),
  }
}

function keysOf(
  settings: JwtSettings,
  readFile: (path: string) => Buffer,
): { publicKey: KeyObject; privateKey: KeyObject | undefined } {
  const { method, publicKeyFile, privateKeyFile } = settings
  if (!publicKeyFile && !privateKeyFile) throw keyFault(`${method} needs pub-key or priv-key`)
  const parse = (path: string, make: (pem: Buffer) => KeyObject): KeyObject => {
    const pem = load(path, readFile)
    try {
      return make(pem)
    } catch (cause) {
      throw keyFault(`${path} holds no key in PEM`, cause)
    }
  }
  const privateKey = privateKeyFile ? parse(privateKeyFile, createPrivateKey) : undefined
  const publicKey = publicKeyFile ? parse(publicKeyFile, createPublicKey) : createPublicKey(privateKey!)
  if (privateKey && !createPublicKey(privateKey).equals(publicKey)) {
    throw keyFault('pub-key and priv-key are no pair')
  }
  const type = method === 'EdDSA' ? 'ed25519' : method.startsWith('ES') ? 'ec' : 'rsa'
  const curve = curves[method]
  const isFitting =
    publicKey.asymmetricKeyType === type &&
    (curve === undefined || publicKey.asymmetricKeyDetails?.namedCurve === curve)
  if (!isFitting) throw keyFault(`the key is not one for ${method}`)
  return { publicKey, privateKey }
}

function load(path: string, readFile: (path: string) => Buffer): Buffer {
  try {
    return readFile(path)
  } catch (cause) {
    throw keyFault(`cannot read ${path}`, cause)
  }
}

const keyFault = (sentence: string, cause?: unknown): Fault =>
  new Fault('STORE_AUTH_TOKEN', `--auth-token: ${sentence}`, cause === undefined ? {} : { cause })

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')

function decode(part: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString())
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}
