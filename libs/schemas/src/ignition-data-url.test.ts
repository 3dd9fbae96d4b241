import { expect, test } from 'vitest'
import { decodeDataUrl } from './ignition-data-url.ts'

const bytes = (url: string): number[] | undefined => {
  const decoded = decodeDataUrl(url)
  return decoded && [...decoded]
}

test('escapes of a data URL give text in UTF-8', () => {
  expect(bytes('data:,a%20b')).toEqual([0x61, 0x20, 0x62])
  expect(bytes('data:,%C3%BC%e2%82%ac')).toEqual([...Buffer.from('ü€')])
})

test('escapes of a data URL that are no text give their bytes', () => {
  expect(bytes('data:,a%ff%00%C3b%80')).toEqual([0x61, 0xff, 0, 0xc3, 0x62, 0x80])
  // A surrogate, a character written longer than it is, and a byte order mark.
  expect(bytes('data:,%ED%A0%80')).toEqual([0xed, 0xa0, 0x80])
  expect(bytes('data:,%C0%80')).toEqual([0xc0, 0x80])
  expect(bytes('data:,%EF%BB%BFx')).toEqual([0xef, 0xbb, 0xbf, 0x78])
})

test('a data URL with anything but text and whole escapes is none', () => {
  for (const data of ['a b', 'ü', '%', '%2', '%2g', 'a%zz', '"'])
    expect(bytes(`data:,${data}`)).toBeUndefined()
})
