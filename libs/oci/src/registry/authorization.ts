import { Fault } from '@kiln/service'
import * as z from 'zod'
import { openUrl, readBody } from '../http.ts'
import type { Credentials } from './credentials.ts'

export type Challenge = { scheme: string; parameters: Record<string, string> }

const tokenBytesMax = 64 << 10
const clientId = 'kiln-runtime'

/** The challenges of a `WWW-Authenticate` header (RFC 9110, 11.6.1), schemes in lower case. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = []
  const pieces = header.matchAll(/\s*,?\s*([A-Za-z][\w-]*)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+)))?/g)
  for (const [, name = '', quoted, plain] of pieces) {
    const value = quoted?.replace(/\\(.)/g, '$1') ?? plain
    if (value === undefined) challenges.push({ scheme: name.toLowerCase(), parameters: {} })
    else if (challenges.length > 0) challenges[challenges.length - 1]!.parameters[name.toLowerCase()] = value
  }
  return challenges
}

const TokenAnswer = z.looseObject({ token: z.string().optional(), access_token: z.string().optional() })

export type AuthorizationOptions = {
  /** As the registry sent it with its 401. */
  challenge: string
  repository: string
  credentials: Credentials | undefined
  signal: AbortSignal
  ca?: string | undefined
}

/**
 * The `Authorization` header that answers a challenge: a token fetched from the realm (distribution's token specification), or the
 * password itself. Undefined when the registry wants what we do not have.
 */
export async function answerChallenge(options: AuthorizationOptions): Promise<string | undefined> {
  const { credentials } = options
  const challenges = parseChallenges(options.challenge)
  if (credentials?.kind === 'bearer') return `Bearer ${credentials.token}`
  const bearer = challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters['realm'])
  if (bearer) return `Bearer ${await fetchToken(bearer.parameters, options)}`
  if (challenges.some(({ scheme }) => scheme === 'basic') && credentials?.kind === 'password')
    return basic(credentials)
  return undefined
}

async function fetchToken(
  { realm = '', service, scope }: Record<string, string>,
  options: AuthorizationOptions,
): Promise<string> {
  const { credentials, signal, ca } = options
  const url = readRealm(realm)
  const wanted = scope ?? `repository:${options.repository}:pull`
  const fields = { ...(service === undefined ? {} : { service }), scope: wanted }
  const response =
    credentials?.kind === 'identity'
      ? await openUrl(url.href, {
          method: 'POST',
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
          body: new URLSearchParams({
            grant_type: 'refresh_token',
            refresh_token: credentials.token,
            client_id: clientId,
            ...fields,
          }).toString(),
          signal,
          ca,
        })
      : await openUrl(withFields(url, fields), {
          headers: credentials?.kind === 'password' ? { authorization: basic(credentials) } : {},
          secrets: ['authorization'],
          signal,
          ca,
        })
  const body = await readBody(response, tokenBytesMax, `the answer of ${url.host}`)
  if (response.statusCode === 401 || response.statusCode === 403)
    throw new Fault('REGISTRY_DENIED', `${url.host} gives no token for ${options.repository}`)
  const answer = response.statusCode === 200 ? readToken(body) : undefined
  if (answer === undefined)
    throw new Fault('IMAGE_DOWNLOAD_FAILED', `${url.host} answers ${response.statusCode} instead of a token`)
  return answer
}

/** A registry names the place that gets our password: only over TLS, or on this machine. */
function readRealm(realm: string): URL {
  const url = URL.canParse(realm) ? new URL(realm) : undefined
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname))) return url
  throw new Fault(
    'REGISTRY_DENIED',
    `the registry wants tokens from ${JSON.stringify(realm.slice(0, 200))}`,
    {
      remedy: 'tokens are only fetched over https',
    },
  )
}

export const isLoopback = (hostname: string): boolean =>
  hostname === 'localhost' || /^127(\.\d{1,3}){3}$/.test(hostname) || hostname === '[::1]'

function withFields(url: URL, fields: Record<string, string>): string {
  const target = new URL(url)
  for (const [name, value] of Object.entries(fields)) target.searchParams.set(name, value)
  return target.href
}

function readToken(body: Buffer): string | undefined {
  try {
    const { token, access_token: accessToken } = TokenAnswer.parse(JSON.parse(body.toString('utf8')))
    return token ?? accessToken
  } catch {
    return undefined
  }
}

const basic = ({ username, password }: { username: string; password: string }): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
