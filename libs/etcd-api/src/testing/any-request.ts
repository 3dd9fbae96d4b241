import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import fc from 'fast-check'
import { apiMethods } from '../descriptors.ts'

export type AnyRequest = {
  path: string
  clientStreams: boolean
  serverStreams: boolean
  /** Bytes that the protocol allows as request, with the values at which programs break. */
  request: fc.Arbitrary<Uint8Array>
}

const depthMax = 3
const int64 = fc.oneof(
  fc.constantFrom(0n, 1n, -1n, 2n ** 31n, -(2n ** 31n), 2n ** 53n, 2n ** 63n - 1n, -(2n ** 63n)),
  fc.bigInt(-10n, 100n),
)
const int32 = fc.oneof(fc.constantFrom(0, 1, -1, 2 ** 31 - 1, -(2 ** 31)), fc.integer({ min: -3, max: 10 }))
const bytes = fc.oneof(
  fc.constantFrom('', 'a', 'b', '\0', 'k').map((text) => Buffer.from(text)),
  fc.uint8Array({ maxLength: 40 }),
)
const text = fc.oneof(
  fc.constantFrom('', 'a', 'root', 'http://127.0.0.1:1', '3.4.0', '/', 'é\0'),
  fc.string({ maxLength: 40, unit: 'grapheme' }),
)

/** Every method of the API with requests made from its schema. */
export function anyRequests(): AnyRequest[] {
  return apiMethods().map(({ path, input, methodKind }) => ({
    path,
    clientStreams: methodKind === 'client_streaming' || methodKind === 'bidi_streaming',
    serverStreams: methodKind === 'server_streaming' || methodKind === 'bidi_streaming',
    request: messageBytes(input, 0),
  }))
}

/** Every field is there or not; of a oneof the last that is there counts, as on any wire. */
function messageBytes(message: DescMessage, depth: number): fc.Arbitrary<Uint8Array> {
  const fields = message.fields.filter((field) => depth < depthMax || messageOf(field) === undefined)
  return fc
    .tuple(...fields.map((field) => fc.option(fieldBytes(field, depth), { nil: new Uint8Array(0) })))
    .map((parts) => Buffer.concat(parts))
}

const messageOf = (field: DescField): DescMessage | undefined =>
  field.fieldKind === 'message' || (field.fieldKind === 'list' && field.listKind === 'message')
    ? field.message
    : undefined

function fieldBytes(field: DescField, depth: number): fc.Arbitrary<Uint8Array> {
  if (field.fieldKind === 'map') throw new Error(`the API has no maps, but ${field.name} is one`)
  const one = valueBytes(field, depth)
  return field.fieldKind === 'list' ? fc.array(one, { maxLength: 3 }).map((all) => Buffer.concat(all)) : one
}

/** One value behind its tag. */
function valueBytes(
  field: Exclude<DescField, { fieldKind: 'map' }>,
  depth: number,
): fc.Arbitrary<Uint8Array> {
  const { number } = field
  const nested = messageOf(field)
  const delimited = (value: Uint8Array): Uint8Array =>
    new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(value).finish()
  if (nested) return messageBytes(nested, depth + 1).map(delimited)
  const varint = () => new BinaryWriter().tag(number, WireType.Varint)
  switch ('scalar' in field ? field.scalar : undefined) {
    case ScalarType.BYTES:
      return bytes.map(delimited)
    case ScalarType.STRING:
      return text.map((value) => delimited(Buffer.from(value)))
    case ScalarType.INT64:
      return int64.map((value) => varint().int64(value).finish())
    case ScalarType.UINT64:
      return int64.map((value) => varint().uint64(BigInt.asUintN(64, value)).finish())
    case ScalarType.BOOL:
      return fc.boolean().map((value) => varint().bool(value).finish())
    default:
      // Enums and 32-bit integers; unknown numbers of enums too.
      return int32.map((value) => varint().int32(value).finish())
  }
}
