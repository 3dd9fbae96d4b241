import { getCiphers } from 'node:tls'
import type { RawSettings } from './read-flags.ts'

type TlsVersion = 'TLSv1.2' | 'TLSv1.3'

/** What clients and members may agree on: versions, and below TLS 1.3 the ciphers as OpenSSL lists them. */
export type TlsProtocol = { minVersion: TlsVersion; maxVersion?: TlsVersion; ciphers?: string }

const versions: Record<string, TlsVersion> = { 'TLS1.2': 'TLSv1.2', 'TLS1.3': 'TLSv1.3' }
/** Never a matter of choice, as in Go; without them OpenSSL would take the list for one that forbids TLS 1.3. */
const ciphersOf13 = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']

/** `tls-min-version`, `tls-max-version` and `cipher-suites`, with etcd's rules and words. */
export function readTlsProtocol(raw: RawSettings): TlsProtocol {
  const { problems } = raw
  const text = (name: string): string => raw.values.get(name) ?? ''
  const version = (name: string): TlsVersion | undefined => {
    const value = text(name)
    if (value !== '' && !versions[value]) problems.push(`--${name}: unexpected TLS version "${value}"`)
    return versions[value]
  }
  const minVersion = version('tls-min-version') ?? 'TLSv1.2'
  const maxVersion = version('tls-max-version')
  if (maxVersion && minVersion > maxVersion) {
    problems.push(
      `min version (${text('tls-min-version')}) is greater than max version (${text('tls-max-version')})`,
    )
  }
  const names = text('cipher-suites')
    .split(',')
    .map((each) => each.trim())
    .filter((each) => each !== '')
  if (names.length > 0 && minVersion === 'TLSv1.3')
    problems.push('cipher suites cannot be configured when only TLS1.3 is enabled')
  const ciphers: string[] = []
  for (const name of names.filter((each) => !ciphersOf13.includes(each))) {
    const cipher = opensslName(name)
    if (cipher) ciphers.push(cipher)
    else problems.push(`unexpected TLS cipher suite "${name}"`)
  }
  return {
    minVersion,
    ...(maxVersion ? { maxVersion } : {}),
    ...(names.length > 0 ? { ciphers: [...ciphersOf13, ...ciphers].join(':') } : {}),
  }
}

/** `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`, as standards and Go name it, is `ECDHE-RSA-AES128-GCM-SHA256` to OpenSSL. */
function opensslName(name: string): string | undefined {
  const found = name
    .replace(/^TLS_/, '')
    .replace('3DES_EDE_CBC', 'DES-CBC3')
    .replace(/AES_(\d+)(_CBC)?/, 'AES$1')
    .replace('CHACHA20_POLY1305_SHA256', 'CHACHA20_POLY1305')
    .replace(/^RSA_WITH_/, '')
    .replace('_WITH_', '-')
    .replaceAll('_', '-')
  return getCiphers().includes(found.toLowerCase()) ? found : undefined
}
