import type { Shape } from './decode.ts'
import { findSpec } from './specs.ts'

/** TypeScript for the newest version of the variant `kiln`, made from its table of fields. */
export function machineConfigTypes(): string {
  const { shape, variant, version } = findSpec('kiln', '1.0.0')!
  const fields = Object.entries(shape.fields)
    .filter(([name]) => name !== 'variant' && name !== 'version')
    .map(([name, field]) => `  ${name}?: ${typeOf(field, 1)}`)
  return [
    `/** A machine's config: Butane's variant ${variant} ${version}, made by \`kiln config types\`. */`,
    'export type MachineConfig = {',
    `  variant: '${variant}'`,
    `  version: '${version}'`,
    ...fields,
    '}',
    '',
  ].join('\n')
}

function typeOf(shape: Shape, depth: number): string {
  switch (shape.kind) {
    case 'string':
    case 'bytes':
      return 'string'
    case 'int':
      return 'number'
    case 'bool':
      return 'boolean'
    case 'labels':
      return 'Record<string, string>'
    case 'document':
      return 'object'
    case 'list':
      return `Array<${typeOf(shape.of, depth)}>`
    case 'struct': {
      const indent = '  '.repeat(depth + 1)
      const fields = Object.entries(shape.fields).map(
        ([name, field]) => `${indent}${name}?: ${typeOf(field, depth + 1)}`,
      )
      return `{\n${fields.join('\n')}\n${'  '.repeat(depth)}}`
    }
  }
}
