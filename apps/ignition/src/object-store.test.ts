import { expect, test } from 'vitest'
import { cloudOf, objectRequest } from './object-store.ts'

const now = new Date('2026-01-02T03:04:05Z')
const urlOf = (source: string, region?: string): string => objectRequest(source, {}, now, region).url

test.each([
  ['s3://bucket/some/key', 'https://bucket.s3.us-east-1.amazonaws.com/some/key'],
  ['s3://bucket/a%20b?versionId=v1', 'https://bucket.s3.us-east-1.amazonaws.com/a%20b?versionId=v1'],
  ['arn:aws:s3:::bucket/some/key', 'https://bucket.s3.us-east-1.amazonaws.com/some/key'],
  ['arn:aws-cn:s3:::bucket/key?versionId=v', 'https://bucket.s3.us-east-1.amazonaws.com.cn/key?versionId=v'],
  [
    'arn:aws:s3:us-west-2:123456789012:accesspoint/point/some/key',
    'https://point-123456789012.s3-accesspoint.us-west-2.amazonaws.com/some/key',
  ],
  ['gs://bucket/some/object', 'https://storage.googleapis.com/bucket/some/object'],
])('%s is read from %s', (source, url) => {
  expect(urlOf(source)).toBe(url)
})

test('an answer that names a region, and the own region of the instance, are heeded', () => {
  expect(urlOf('s3://b/k', 'eu-west-1')).toBe('https://b.s3.eu-west-1.amazonaws.com/k')
  const request = objectRequest('s3://b/k', { awsRegion: 'eu-north-1' }, now)
  expect(request).toEqual({ url: 'https://b.s3.eu-north-1.amazonaws.com/k', headers: {} })
})

test('credentials sign, a token is sent', () => {
  const awsCredentials = { accessKey: 'A', secretKey: 'S' }
  const { headers } = objectRequest('s3://b/k', { awsCredentials, awsRegion: 'eu-west-1' }, now)
  expect(headers['Authorization']).toContain('Credential=A/20260102/eu-west-1/s3/aws4_request')
  const gs = objectRequest('gs://b/k', { gcpToken: 't' }, now)
  expect(gs.headers).toEqual({ Authorization: 'Bearer t' })
})

test.each([
  ['s3://b/k', 'aws'],
  ['arn:aws:s3:::b/k', 'aws'],
  ['gs://b/k', 'gcp'],
  ['https://account.blob.core.windows.net/container/some/blob', 'azure'],
  ['https://account.blob.core.windows.net/container/blob?sv=1&sig=2', undefined],
  ['https://account.blob.core.windows.net/container', undefined],
  ['http://account.blob.core.windows.net/container/blob', undefined],
  ['https://account.blob.core.windows.net.evil.test/container/blob', undefined],
  ['https://evil.test/account.blob.core.windows.net/blob', undefined],
  ['https://user@evil.test:1/a', undefined],
])('%s is an object of %s', (source, cloud) => {
  expect(cloudOf(source)).toBe(cloud)
})
