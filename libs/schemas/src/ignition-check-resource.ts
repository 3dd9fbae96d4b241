import type { IgnitionResource } from './ignition.ts'
import { decodeDataUrl } from './ignition-data-url.ts'
import type { IgnitionPath, Report } from './ignition-finding.ts'

/** Schemes of sources, with the spec version that has them first. */
const sinceVersion: Record<string, string> = {
  http: '3.0.0',
  https: '3.0.0',
  tftp: '3.0.0',
  s3: '3.0.0',
  gs: '3.2.0',
  arn: '3.4.0',
}
const hashLengths: Record<string, number> = { sha512: 128, sha256: 64 }

/** Rules of a resource: its source, hash, compression and headers. */
export function checkResource(
  resource: IgnitionResource,
  at: {
    path: IgnitionPath
    version: string
    required: boolean
    /** A hash without a source is let pass. */
    unverified?: boolean
    report: Report
  },
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
    if (source === undefined && !at.unverified) {
      const text = 'source must be specified if verification is specified'
      report('error', [...path, 'verification', 'hash'], text)
    }
  }
  for (const [index, header] of (httpHeaders ?? []).entries()) {
    if (header.name === '') {
      report('error', [...path, 'httpHeaders', index, 'name'], "HTTP header name can't be empty")
    }
    if (header.value === '') {
      report('error', [...path, 'httpHeaders', index, 'value'], 'HTTP header value cannot be empty')
    }
  }
  if (httpHeaders && httpHeaders.length > 0) {
    const problem = headersProblem(source)
    if (problem) report('error', [...path, 'httpHeaders'], problem)
  }
}

function headersProblem(source: string | undefined): string | undefined {
  if (!source) return 'HTTP headers need a source'
  if (!isParsable(source)) return 'unable to parse url'
  return /^https?:/i.test(source) ? undefined : 'cannot use HTTP headers with this source type'
}

/** Why a source cannot be fetched from, by its form alone. */
export function sourceProblem(source: string, version: string): string | undefined {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(source)?.[1]?.toLowerCase()
  if (scheme === undefined) return isParsable(source) ? 'invalid url scheme' : 'unable to parse url'
  if (scheme === 'data') return decodeDataUrl(source) ? undefined : 'unable to parse data URL'
  if (!isParsable(source)) return 'unable to parse url'
  if ((sinceVersion[scheme] ?? 'never') > version) return 'invalid url scheme'
  if (scheme === 'arn') return arnProblem(source) ?? versionIdProblem(source)
  return scheme === 's3' ? versionIdProblem(source) : undefined
}

/**
 * What Go's parser of URLs, which the specification follows, refuses: bad escapes (those of a query do not count),
 * ports and host names.
 */
export function isParsable(source: string): boolean {
  const withoutQuery = source.replace(/\?[^#]*/s, '')
  if (/%(?![0-9a-f]{2})/i.test(withoutQuery) || source.startsWith(':')) return false
  if (/[\u0000-\u001f\u007f]/.test(source)) return false
  const host = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#]*@)?([^/?#]*)/i.exec(source)?.[1]
  if (host === undefined) return true
  return host.startsWith('[')
    ? /^\[[^\]\s]+\](:\d*)?$/.test(host)
    : /^[^\s:[\]<>"\\^`{|}]*(:\d*)?$/.test(host)
}

/** `arn:PARTITION:s3:REGION:ACCOUNT:RESOURCE`, where the resource is BUCKET/KEY or accesspoint/NAME/KEY. */
function arnProblem(source: string): string | undefined {
  const arn = source.replace(/[?#].*$/s, '').replace(/^arn:/i, 'arn:')
  const [, , service, , , ...rest] = arn.split(':')
  const resource = rest.join(':')
  const partsMin = resource.startsWith('accesspoint/') ? 3 : 2
  const good = rest.length > 0 && service === 's3' && arn.split('/').length >= partsMin
  return good ? undefined : 'invalid S3 ARN format'
}

function versionIdProblem(source: string): string | undefined {
  const query = /\?([^#]*)/.exec(source)?.[1] ?? ''
  return new URLSearchParams(query).get('versionId') === '' ? 'invalid S3 object VersionId' : undefined
}

function hashProblem(hash: string, version: string): string | undefined {
  const dash = hash.indexOf('-')
  if (dash < 0) return 'malformed hash specifier'
  const length = hashLengths[hash.slice(0, dash)]
  if (length === undefined || (hash.startsWith('sha256') && version < '3.1.0')) {
    return 'unrecognized hash function'
  }
  const sum = hash.slice(dash + 1)
  return Buffer.byteLength(sum) === length ? undefined : 'incorrect size for hash sum'
}
