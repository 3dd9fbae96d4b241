import { expect, test } from 'vitest'
import { crc32c } from './castagnoli.ts'
import { encodeKeyValue, keyValueBytes, parseRevisionKey, revisionKey, type Version } from './version.ts'

const version: Version = {
  key: Buffer.from('foo'),
  value: Buffer.from('bar'),
  revision: 300,
  sub: 2,
  createRevision: 2,
  version: 3,
  lease: -2n,
}

test('CRC-32C has the values of RFC 3720, appendix B.4', () => {
  expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa)
  expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43)
  expect(crc32c(Buffer.from(Array.from({ length: 32 }, (_, at) => at)))).toBe(0x46dd794e)
  expect(crc32c(Buffer.from('6789'), crc32c(Buffer.from('12345')))).toBe(crc32c(Buffer.from('123456789')))
})

test('a version is stored as mvccpb.KeyValue, a deletion as its key', () => {
  const bytes = encodeKeyValue(version)
  expect(bytes.toString('hex')).toBe('0a03666f6f100218ac0220032a0362617230feffffffffffffffff01')
  expect(keyValueBytes(version)).toBe(bytes.length)
  expect(encodeKeyValue({ ...version, version: 0 }).toString('hex')).toBe('0a03666f6f')
})

test('a revision key is read as it was written', () => {
  const key = revisionKey({ ...version, revision: 2 ** 40 + 7 })
  expect(key.toString('hex')).toBe('00000100000000075f0000000000000002')
  expect(parseRevisionKey(key)).toEqual({ revision: 2 ** 40 + 7, sub: 2, isDeletion: false })
  expect(parseRevisionKey(revisionKey({ ...version, version: 0 }))).toEqual({
    revision: 300,
    sub: 2,
    isDeletion: true,
  })
  expect(parseRevisionKey(Buffer.from('some other key'))).toBeUndefined()
  expect(parseRevisionKey(Buffer.alloc(17, 0xff))).toBeUndefined()
})
