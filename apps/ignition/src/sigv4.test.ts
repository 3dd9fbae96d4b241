import { expect, test } from 'vitest'
import { signedGet } from './sigv4.ts'

const credentials = {
  accessKey: 'AKIAIOSFODNN7EXAMPLE',
  secretKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
}
const at = { region: 'us-east-1', service: 's3', credentials, now: new Date('2013-05-24T00:00:00Z') }

test('the GET object example of the S3 documentation is signed as it says', () => {
  const url = new URL('https://examplebucket.s3.amazonaws.com/test.txt')
  const headers = signedGet(url, { ...at, headers: { Range: 'bytes=0-9' } })
  expect(headers['Authorization']).toBe(
    'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,' +
      'SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,' +
      'Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
  )
})

test('the example with a query is signed as it says', () => {
  const url = new URL('https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J')
  expect(signedGet(url, at)['Authorization']).toContain(
    'Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
  )
})

test('a session token is sent and signed', () => {
  const url = new URL('https://b.s3.amazonaws.com/k')
  const headers = signedGet(url, { ...at, credentials: { ...credentials, sessionToken: 'token' } })
  expect(headers['x-amz-security-token']).toBe('token')
  expect(headers['Authorization']).toContain('x-amz-security-token,')
})
