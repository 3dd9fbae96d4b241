import { expect, test } from 'vitest'
import { encodeGrpcMessage, parseGrpcTimeout } from './status.ts'

test('a status message is percent-encoded where it must be', () => {
  expect(encodeGrpcMessage('etcdserver: key is not provided')).toBe('etcdserver: key is not provided')
  expect(encodeGrpcMessage('100 % ä\n')).toBe('100 %25 %C3%A4%0A')
  expect(decodeURIComponent(encodeGrpcMessage('naïve ☃ %41'))).toBe('naïve ☃ %41')
})

test('timeouts have a unit and eight digits at most', () => {
  expect(parseGrpcTimeout('5S')).toBe(5000)
  expect(parseGrpcTimeout('99999999n')).toBeCloseTo(99.999999)
  expect(parseGrpcTimeout('250m')).toBe(250)
  expect(parseGrpcTimeout('4999871u')).toBeCloseTo(4999.871)
  expect(parseGrpcTimeout('1H')).toBe(3_600_000)
  for (const bad of ['', 'S', '5', '5x', '-1S', '123456789S', '1.5S'])
    expect(parseGrpcTimeout(bad)).toBeUndefined()
})
