import type { IgnitionConfig, IgnitionProblem, IgnitionResource } from '@kiln/schemas'
import { refuseImpossible } from './impossible-values.ts'

const schemes = /^(https?|data|file|tftp):/i

/**
 * What a config may ask for by the specification but this agent does not do. Known before anything is touched, so that
 * no machine is left half set up.
 */
export function unsupportedParts(config: IgnitionConfig): IgnitionProblem[] {
  const problems: IgnitionProblem[] = []
  const refuse = (path: string, message: string): void => {
    problems.push({ path, severity: 'error', message, line: 0, column: 0 })
  }
  const { storage } = config
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
