import type { IgnitionResource } from './ignition.ts'
import { decodeDataUrl } from './ignition-data-url.ts'
import type { IgnitionPath, Report } from './ignition-finding.ts'

const schemes = ['http', 'https', 'tftp', 'data', 's3', 'gs']
const hashLengths: Record<string, number> = { sha512: 128, sha256: 64 }

/** Rules of a resource: its source, hash, compression and headers. */
export function checkResource(
  resource: IgnitionResource,
  at: { path: IgnitionPath; version: string; required: boolean; report: Report },
): void {
  const { path, version, report } = at
  const { source, compression, verification, httpHeaders } = resource
  if (!source && at.required) report('error', path, 'source is required')
  if (source) {
    const problem = sourceProblem(source, version)
    if (problem) report('error', [...path, 'source'], problem)
  }
  if (compression !== undefined && compression !== '' && compression !== 'gzip') {
    report('error', [...path, 'compression'], 'invalid compression method')
  }
  const hash = verification?.hash
  if (hash !== undefined) {
    const problem = hashProblem(hash, version)
    if (problem) report('error', [...path, 'verification', 'hash'], problem)
    if (source === undefined) {
      const text = 'source must be specified if verification is specified'
      report('error', [...path, 'verification', 'hash'], text)
    }
  }
  for (const [index, header] of (httpHeaders ?? []).entries()) {
    if (header.name === '') {
      report('error', [...path, 'httpHeaders', index, 'name'], "HTTP header name can't be empty")
    }
  }
  if (httpHeaders && httpHeaders.length > 0 && source && !/^https?:/i.test(source)) {
    report('error', [...path, 'httpHeaders'], 'cannot use HTTP headers with this source type')
  }
}

function sourceProblem(source: string, version: string): string | undefined {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(source)?.[1]?.toLowerCase()
  if (scheme === undefined) return 'invalid url scheme'
  if (scheme === 'arn') return version >= '3.4.0' ? undefined : 'invalid url scheme'
  if (!schemes.includes(scheme)) return 'invalid url scheme'
  if (scheme === 'data') return decodeDataUrl(source) ? undefined : 'unable to parse data URL'
  return URL.canParse(source) ? undefined : 'unable to parse url'
}

function hashProblem(hash: string, version: string): string | undefined {
  const dash = hash.indexOf('-')
  if (dash < 0) return 'malformed hash specifier'
  const length = hashLengths[hash.slice(0, dash)]
  if (length === undefined || (hash.startsWith('sha256') && version < '3.1.0')) {
    return 'unrecognized hash function'
  }
  const sum = hash.slice(dash + 1)
  return sum.length === length && /^[0-9a-f]*$/i.test(sum) ? undefined : 'incorrect size for hash sum'
}
