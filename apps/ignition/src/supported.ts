import type { IgnitionConfig, IgnitionProblem, IgnitionResource } from '@kiln/schemas'
import { refuseImpossible } from './impossible-values.ts'

/** Filesystems whose tools are in the image. */
const formats = ['ext4', 'vfat', 'swap', 'none']
const schemes = /^(https?|data|file):/i

/**
 * What a config may ask for by the specification but this agent does not do. Known before anything is touched, so that
 * no machine is left half set up.
 */
export function unsupportedParts(config: IgnitionConfig): IgnitionProblem[] {
  const problems: IgnitionProblem[] = []
  const refuse = (path: string, message: string): void => {
    problems.push({ path, severity: 'error', message, line: 0, column: 0 })
  }
  const { storage, kernelArguments, ignition } = config
  if (storage?.raid?.length) refuse('$.storage.raid', 'RAID is not supported by this agent')
  if (storage?.luks?.length) refuse('$.storage.luks', 'LUKS is not supported by this agent')
  if (kernelArguments?.shouldExist?.length || kernelArguments?.shouldNotExist?.length) {
    refuse('$.kernelArguments', 'kernel arguments come from the signed release and cannot be changed')
  }
  if (ignition.proxy?.httpProxy || ignition.proxy?.httpsProxy) {
    refuse('$.ignition.proxy', 'proxies are not supported by this agent')
  }
  for (const [index, { format }] of (storage?.filesystems ?? []).entries()) {
    if (format && !formats.includes(format)) {
      refuse(`$.storage.filesystems.${index}.format`, `the image cannot make ${format} filesystems`)
    }
  }
  refuseImpossible(config, refuse)
  const check = (resource: IgnitionResource | undefined, path: string): void => {
    if (resource?.source && !schemes.test(resource.source)) {
      const scheme = resource.source.slice(0, resource.source.indexOf(':'))
      refuse(`${path}.source`, `sources of scheme ${scheme} are not supported by this agent`)
    }
  }
  for (const [index, file] of (storage?.files ?? []).entries()) {
    check(file.contents, `$.storage.files.${index}.contents`)
    for (const [at, resource] of (file.append ?? []).entries()) {
      check(resource, `$.storage.files.${index}.append.${at}`)
    }
  }
  return problems
}
