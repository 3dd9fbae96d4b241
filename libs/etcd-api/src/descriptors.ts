import {
  createFileRegistry,
  type DescMethod,
  type FileRegistry,
  fromBinary,
  fromJson,
  type JsonValue,
  toBinary,
  toJson,
} from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { fileDescriptorSet } from './generated/descriptors.ts'

export type { JsonValue }

/** A method of the API, with its messages in JSON as proto3 maps them. */
export type MethodCodec = {
  clientStreams: boolean
  serverStreams: boolean
  /** Takes both forms of a field's name, 64-bit integers as strings or numbers, enums by name or number; throws on what is no request. */
  requestFromJson(json: JsonValue): Uint8Array
  /** Field names as in the protocol file, 64-bit integers as strings, bytes in base64, defaults left out. */
  responseToJson(bytes: Uint8Array): JsonValue
}

let registry: FileRegistry | undefined

function files(): FileRegistry {
  registry ??= createFileRegistry(
    fromBinary(FileDescriptorSetSchema, Buffer.from(fileDescriptorSet, 'base64')),
  )
  return registry
}

/** All methods, each with its gRPC path. */
export function apiMethods(): (DescMethod & { path: string })[] {
  return [...files()].flatMap((type) =>
    type.kind === 'service'
      ? type.methods.map((method) => ({ ...method, path: `/${type.typeName}/${method.name}` }))
      : [],
  )
}

/** The method at a gRPC path, `/package.Service/Method`; undefined if the API has none there. */
export function methodCodec(path: string): MethodCodec | undefined {
  const [, service = '', name = ''] = path.split('/')
  const method = files()
    .getService(service)
    ?.methods.find((each) => each.name === name)
  return method && codecOf(method)
}

function codecOf({ input, output, methodKind }: DescMethod): MethodCodec {
  return {
    clientStreams: methodKind === 'client_streaming' || methodKind === 'bidi_streaming',
    serverStreams: methodKind === 'server_streaming' || methodKind === 'bidi_streaming',
    requestFromJson: (json) => toBinary(input, fromJson(input, json, { ignoreUnknownFields: true })),
    responseToJson: (bytes) => toJson(output, fromBinary(output, bytes), { useProtoFieldName: true }),
  }
}

/** One protocol file: its name, the names declared in it, and its FileDescriptorProto. */
export type ProtocolFile = { name: string; imports: string[]; symbols: Set<string>; bytes: Uint8Array }

/** All protocol files of the API, for server reflection. */
export function protocolFiles(): ProtocolFile[] {
  return [...files().files].map((file) => {
    const symbols = new Set<string>()
    for (const service of file.services) {
      symbols.add(service.typeName)
      for (const method of service.methods) symbols.add(`${service.typeName}.${method.name}`)
    }
    const messages = [...file.messages]
    for (let message = messages.pop(); message; message = messages.pop()) {
      symbols.add(message.typeName)
      for (const field of message.fields) symbols.add(`${message.typeName}.${field.name}`)
      for (const inner of message.nestedEnums) symbols.add(inner.typeName)
      messages.push(...message.nestedMessages)
    }
    for (const each of file.enums) symbols.add(each.typeName)
    const bytes = toBinary(FileDescriptorProtoSchema, file.proto)
    return { name: file.proto.name, imports: file.proto.dependency, symbols, bytes }
  })
}
