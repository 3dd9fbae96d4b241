import { type ProtocolFile, protocolFiles } from '@kiln/etcd-api/descriptors'
import { ServerReflectionRequest, ServerReflectionResponse } from '@kiln/etcd-api/reflection'
import { grpcCode } from '@kiln/wire'
import type { MethodTable } from './method-table.ts'
import { decode } from './requests.ts'

type Answer = ServerReflectionResponse['messageResponse']

/** Server reflection, v1 and v1alpha, which are the same but for their name: tools learn the API from the server. */
export function serveReflection(methods: MethodTable): void {
  let files: ProtocolFile[] | undefined
  for (const version of ['v1', 'v1alpha']) {
    methods.stream(`/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`, (call) => ({
      onMessage: (bytes) => {
        files ??= protocolFiles()
        const request = decode(ServerReflectionRequest, bytes)
        const messageResponse = answerOf(request, files, methods.services())
        call.send(
          ServerReflectionResponse.encode({
            validHost: request.host,
            originalRequest: request,
            messageResponse,
          }).finish(),
        )
      },
      onEnd: () => call.end(),
    }))
  }
}

function answerOf(
  { messageRequest }: ServerReflectionRequest,
  files: ProtocolFile[],
  services: string[],
): Answer {
  switch (messageRequest?.$case) {
    case 'listServices':
      return { $case: 'listServicesResponse', value: { service: services.map((name) => ({ name })) } }
    case 'fileByFilename':
      return withImports(
        files,
        files.find(({ name }) => name === messageRequest.value),
      )
    case 'fileContainingSymbol':
      return withImports(
        files,
        files.find(({ symbols }) => symbols.has(messageRequest.value)),
      )
    case 'fileContainingExtension':
    case 'allExtensionNumbersOfType':
      return refusal(grpcCode.notFound, 'there are no extensions')
    case undefined:
      return refusal(grpcCode.invalidArgument, 'the request asks for nothing')
  }
}

/** A file and all it imports, itself first: clients need not ask again. */
function withImports(files: ProtocolFile[], file: ProtocolFile | undefined): Answer {
  if (!file) return refusal(grpcCode.notFound, 'not found')
  const wanted = new Set([file])
  for (const each of wanted) {
    for (const name of each.imports) wanted.add(files.find((other) => other.name === name)!)
  }
  const fileDescriptorProto = [...wanted].map(({ bytes }) => bytes)
  return { $case: 'fileDescriptorResponse', value: { fileDescriptorProto } }
}

const refusal = (errorCode: number, errorMessage: string): Answer => ({
  $case: 'errorResponse',
  value: { errorCode, errorMessage },
})
