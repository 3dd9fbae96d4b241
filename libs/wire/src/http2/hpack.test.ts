import { expect, test } from 'vitest'
import { ConnectionError } from './frames.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import { type Fields, grpcHead, grpcOkTrailers, HpackEncoder } from './hpack-encoder.ts'
import { decodeHuffman } from './huffman.ts'
import { OutBuffer } from './out-buffer.ts'

function decode(decoder: HpackDecoder, hex: string, listBytesMax = 65_536): string[] {
  const block = Buffer.from(hex.replaceAll(' ', ''), 'hex')
  return decoder
    .decode(block, 0, block.length, listBytesMax)
    .fields.map(({ name, value }) => `${name}: ${value}`)
}

function expectVectors(decoder: HpackDecoder, vectors: [hex: string, fields: string[]][]): void {
  for (const [hex, fields] of vectors) expect(decode(decoder, hex)).toEqual(fields)
}

test('literals and indexes decode as in RFC 7541, C.2', () => {
  expectVectors(new HpackDecoder(), [
    ['400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572', ['custom-key: custom-header']],
    ['040c 2f73 616d 706c 652f 7061 7468', [':path: /sample/path']],
    ['1008 7061 7373 776f 7264 0673 6563 7265 74', ['password: secret']],
    ['82', [':method: GET']],
  ])
})

const requests = [
  [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'],
  [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com', 'cache-control: no-cache'],
  [
    ':method: GET',
    ':scheme: https',
    ':path: /index.html',
    ':authority: www.example.com',
    'custom-key: custom-value',
  ],
]

test('requests decode as in RFC 7541, C.3', () => {
  expectVectors(new HpackDecoder(), [
    ['8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d', requests[0]!],
    ['8286 84be 5808 6e6f 2d63 6163 6865', requests[1]!],
    ['8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65', requests[2]!],
  ])
})

test('requests in Huffman code decode as in RFC 7541, C.4', () => {
  expectVectors(new HpackDecoder(), [
    ['8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff', requests[0]!],
    ['8286 84be 5886 a8eb 1064 9cbf', requests[1]!],
    ['8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf', requests[2]!],
  ])
})

const date = (seconds: number) => `date: Mon, 21 Oct 2013 20:13:${seconds} GMT`
const location = 'location: https://www.example.com'
const responses = [
  [':status: 302', 'cache-control: private', date(21), location],
  [':status: 307', 'cache-control: private', date(21), location],
  [
    ':status: 200',
    'cache-control: private',
    date(22),
    location,
    'content-encoding: gzip',
    'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
  ],
]

test('responses with eviction decode as in RFC 7541, C.5', () => {
  expectVectors(new HpackDecoder(256), [
    [
      '4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
      responses[0]!,
    ],
    ['4803 3330 37c1 c0bf', responses[1]!],
    [
      '88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31',
      responses[2]!,
    ],
  ])
})

test('responses in Huffman code with eviction decode as in RFC 7541, C.6', () => {
  expectVectors(new HpackDecoder(256), [
    [
      '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
      responses[0]!,
    ],
    ['4883 640e ffc1 c0bf', responses[1]!],
    [
      '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
      responses[2]!,
    ],
  ])
})

test('broken blocks are compression errors', () => {
  const broken = {
    'index 0': '80',
    'an index beyond the tables': 'be',
    'a string longer than the block': '400a 6375',
    'an integer without an end': 'ff ff',
    'an integer too large': 'ff ff ff ff ff 7f',
    'a table size over the limit': '3f e2 1f',
    'a table size after a field': '82 20',
    'three table sizes': '20 20 20',
    'padding of more than seven bits': '0481 ff 00',
    'padding with zeros': '0081 18 0161',
    'the end-of-string symbol': '0084 ffffffff 0161',
    'nothing after a name': '40 01 61',
  }
  for (const [what, hex] of Object.entries(broken))
    expect(() => decode(new HpackDecoder(), hex), what).toThrow(ConnectionError)
})

test('a list over the limit is cut, and the table stays right', () => {
  const decoder = new HpackDecoder()
  const block = Buffer.from('400a637573746f6d2d6b65790d637573746f6d2d686561646572', 'hex')
  expect(decoder.decode(block, 0, block.length, 50)).toEqual({ fields: [], tooLarge: true })
  expect(decode(decoder, 'be')).toEqual(['custom-key: custom-header'])
})

test('an entry larger than the table empties it', () => {
  const decoder = new HpackDecoder(64)
  decode(decoder, '4001 6101 62')
  expect(decode(decoder, 'be')).toEqual(['a: b'])
  decode(decoder, `4001 6128 ${'63'.repeat(40)}`)
  expect(() => decode(decoder, 'be')).toThrow(/index 62/)
})

test('the dynamic table keeps its order when it grows and evicts', () => {
  const decoder = new HpackDecoder(4096)
  for (let at = 0; at < 200; at++)
    decode(decoder, `4001 6103 ${Buffer.from(String(at + 100)).toString('hex')}`)
  // 36 bytes each: the newest 113 are there.
  expect(decode(decoder, 'be')).toEqual(['a: 299'])
  expect(decode(decoder, `ff ${(62 + 112 - 127).toString(16)}`)).toEqual(['a: 187'])
  expect(() => decode(decoder, `ff ${(62 + 113 - 127).toString(16)}`)).toThrow(/index 175/)
})

test('Huffman code decodes over byte boundaries', () => {
  expect(decodeHuffman(Buffer.from('ffc7', 'hex'), 0, 2)).toBe('\0')
  expect(decodeHuffman(Buffer.from('1c6490b2cd39ba7f', 'hex'), 0, 8)).toBe('abcdefghij')
})

function encoded(encoder: HpackEncoder, fields: Fields): Buffer {
  const out = new OutBuffer()
  encoder.encode(out, fields)
  return Buffer.from(out.pending())
}

test('the usual answer is two bytes and one', () => {
  const encoder = new HpackEncoder()
  const decoder = new HpackDecoder()
  for (let round = 0; round < 3; round++) {
    const head = encoded(encoder, grpcHead)
    const trailers = encoded(encoder, grpcOkTrailers)
    expect(decode(decoder, head.toString('hex'))).toEqual([':status: 200', 'content-type: application/grpc'])
    expect(decode(decoder, trailers.toString('hex'))).toEqual(['grpc-status: 0'])
    if (round > 0) expect([head.length, trailers.length]).toEqual([2, 1])
  }
})

test('the encoder obeys the table size of its peer', () => {
  const encoder = new HpackEncoder()
  const decoder = new HpackDecoder()
  const both = () => [
    ...decode(decoder, encoded(encoder, grpcHead).toString('hex')),
    ...decode(decoder, encoded(encoder, grpcOkTrailers).toString('hex')),
  ]
  const expected = [':status: 200', 'content-type: application/grpc', 'grpc-status: 0']
  expect(both()).toEqual(expected)
  for (const size of [0, 100, 4096, 50, 65_536]) {
    encoder.setTableSize(size)
    expect(both()).toEqual(expected)
    expect(both()).toEqual(expected)
  }
  encoder.setTableSize(0)
  expect(encoded(encoder, grpcOkTrailers).subarray(0, 2).toString('hex')).toBe('2020')
})

test('other fields go as they are', () => {
  const long = 'x'.repeat(300)
  const fields: Fields = [
    [':status', '404'],
    ['content-type', 'text/plain'],
    ['long', long],
  ]
  expect(decode(new HpackDecoder(), encoded(new HpackEncoder(), fields).toString('hex'))).toEqual([
    ':status: 404',
    'content-type: text/plain',
    `long: ${long}`,
  ])
})
