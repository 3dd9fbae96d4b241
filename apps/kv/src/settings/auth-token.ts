import { type JwtMethod, jwtMethods } from '../auth/jwt.ts'
import { durationMs, type RawSettings } from './read-flags.ts'
import type { AuthTokenSettings } from './settings.ts'

const jwtTtlMsDefault = 5 * 60_000
const jwtOptions = ['sign-method', 'pub-key', 'priv-key', 'ttl']
const bcryptCostDefault = 10

/** `--auth-token`: `simple`, or `jwt` with options (etcd's authentication guide). */
export function readAuthToken(raw: RawSettings): AuthTokenSettings {
  const [kind, ...options] = (raw.values.get('auth-token') ?? '').split(',')
  const problem = (sentence: string): void => void raw.problems.push(`--auth-token: ${sentence}`)
  const ttlSeconds = Number(raw.values.get('auth-token-ttl'))
  const simple: AuthTokenSettings = { kind: 'simple', ttlMs: ttlSeconds * 1000 }
  if (kind === 'simple') {
    if (options.length > 0) problem('simple has no options')
    if (ttlSeconds < 1) raw.problems.push(`--auth-token-ttl: ${ttlSeconds} is below 1`)
    return simple
  }
  if (kind !== 'jwt') {
    problem(`'${kind}' is not simple or jwt`)
    return simple
  }
  const given = new Map<string, string>()
  for (const option of options) {
    const [name = '', value, ...rest] = option.split('=')
    if (value === undefined || rest.length > 0 || !jwtOptions.includes(name) || given.has(name)) {
      problem(`'${option}' is no option of jwt, which has ${jwtOptions.join(' ')}`)
    } else given.set(name, value)
  }
  const method = jwtMethods.find((each) => each === given.get('sign-method'))
  if (!method) problem(`sign-method is none of ${jwtMethods.join(' ')}`)
  const ttlMs = given.has('ttl') ? durationMs(given.get('ttl')!) : jwtTtlMsDefault
  if (!ttlMs) problem(`ttl '${given.get('ttl')}' is no duration`)
  return {
    kind: 'jwt',
    method: method ?? ('RS256' satisfies JwtMethod),
    publicKeyFile: given.get('pub-key') ?? '',
    privateKeyFile: given.get('priv-key') ?? '',
    ttlMs: ttlMs ?? jwtTtlMsDefault,
  }
}

/** `--bcrypt-cost`; out of its bounds it is the default, with a warning, as in etcd. */
export function bcryptCost(raw: RawSettings): number {
  const cost = Number(raw.values.get('bcrypt-cost'))
  if (cost >= 4 && cost <= 31) return cost
  raw.warnings.push(`--bcrypt-cost=${cost} is not within 4 and 31: it is ${bcryptCostDefault}`)
  return bcryptCostDefault
}
