import { Fault } from '@kiln/service'
import { type AwsCredentials, signedGet } from './sigv4.ts'

/** What an instance knows of its cloud, for reading objects: a region to ask first, and credentials, if any. */
export type CloudIdentity = {
  awsRegion?: string | undefined
  awsCredentials?: AwsCredentials | undefined
  /** Bearer token of the instance's service account. */
  gcpToken?: string | undefined
  /** Bearer token of the instance's managed identity, for storage. */
  azureToken?: string | undefined
}

/** Clouds with an object store that asks who an instance is. */
export type ObjectCloud = 'aws' | 'azure' | 'gcp'

/** The cloud that keeps what a source names; undefined for anything that is no object. */
export function cloudOf(source: string): ObjectCloud | undefined {
  if (/^(s3|arn):/i.test(source)) return 'aws'
  if (/^gs:/i.test(source)) return 'gcp'
  return isAzureBlob(source) ? 'azure' : undefined
}

/** `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`; a query is a signature that needs no other identity. */
function isAzureBlob(source: string): boolean {
  if (!/^https:/i.test(source) || !URL.canParse(source)) return false
  const { hostname, pathname, search } = new URL(source)
  return (
    /^[a-z0-9-]+\.blob\.core\.windows\.net$/.test(hostname) && /^\/[^/]+\/./.test(pathname) && search === ''
  )
}

/** First version of the blob service that takes a token of an identity is 2017-11-09. */
const blobServiceVersion = '2023-11-03'

/** An object's address over https, with the headers that its store wants. */
export type ObjectRequest = { url: string; headers: Record<string, string> }

const regionDefault = 'us-east-1'
const domainOfPartition: Record<string, string> = {
  aws: 'amazonaws.com',
  'aws-us-gov': 'amazonaws.com',
  'aws-cn': 'amazonaws.com.cn',
}

/**
 * The request for an object named as `s3://BUCKET/KEY`, `arn:PARTITION:s3:...`, `gs://BUCKET/OBJECT` or as a blob of
 * Azure: signed when the instance has credentials, else as anybody may ask.
 */
export function objectRequest(
  source: string,
  identity: CloudIdentity,
  now: Date,
  region?: string,
): ObjectRequest {
  if (isAzureBlob(source)) {
    const { azureToken } = identity
    const headers = { Authorization: `Bearer ${azureToken}`, 'x-ms-version': blobServiceVersion }
    return { url: source, headers: azureToken ? headers : {} }
  }
  if (/^gs:/i.test(source)) {
    const { hostname, pathname } = new URL(source)
    const headers = identity.gcpToken ? { Authorization: `Bearer ${identity.gcpToken}` } : undefined
    return { url: `https://storage.googleapis.com/${hostname}${pathname}`, headers: headers ?? {} }
  }
  const place = /^arn:/i.test(source) ? placeOfArn(source) : placeOfS3(source)
  const used = region ?? place.region ?? identity.awsRegion ?? regionDefault
  const url = new URL(`https://${place.host(used)}/${place.key.split('/').map(escaped).join('/')}`)
  if (place.versionId) url.searchParams.set('versionId', place.versionId)
  const { awsCredentials: credentials } = identity
  const headers = credentials ? signedGet(url, { region: used, service: 's3', credentials, now }) : {}
  return { url: url.href, headers }
}

const escaped = (part: string): string =>
  encodeURIComponent(part).replace(
    /[!'()*]/g,
    (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`,
  )

type Place = {
  host: (region: string) => string
  key: string
  versionId?: string | undefined
  region?: string
}

function placeOfS3(source: string): Place {
  const { hostname: bucket, pathname, searchParams } = new URL(source)
  return {
    host: (region) => `${bucket}.s3.${region}.amazonaws.com`,
    key: decodeURIComponent(pathname.slice(1)),
    versionId: searchParams.get('versionId') ?? undefined,
  }
}

/** `arn:PARTITION:s3:::BUCKET/KEY`, or an access point of a region and an account. */
function placeOfArn(source: string): Place {
  const [name = '', query = ''] = source.split('?', 2)
  const [, partition = '', , region = '', account = '', ...rest] = name.split(':')
  const domain = domainOfPartition[partition] ?? 'amazonaws.com'
  const [first = '', ...parts] = rest.join(':').split('/')
  const versionId = new URLSearchParams(query).get('versionId') ?? undefined
  const isAccessPoint = first === 'accesspoint'
  const [point = '', ...keys] = isAccessPoint ? parts : [first, ...parts]
  if (keys.length === 0) throw new Fault('RESOURCE_INVALID', `${name} names no object`)
  return {
    host: (used) =>
      isAccessPoint
        ? `${point}-${account}.s3-accesspoint.${used}.${domain}`
        : `${point}.s3.${used}.${domain}`,
    key: keys.join('/'),
    versionId,
    ...(region ? { region } : {}),
  }
}

/** The region of a bucket, when an answer says that it is another one. */
export const regionOfAnswer = (headers: Record<string, unknown>): string | undefined => {
  const region = headers['x-amz-bucket-region']
  return typeof region === 'string' && /^[a-z0-9-]+$/.test(region) ? region : undefined
}
