import type * as z from 'zod'
import { IgnitionConfig } from './ignition.ts'
import { specHasField } from './ignition-versions.ts'

/** What a field of the specification may hold. */
export type Field =
  /** `zero` is what stands for a value that is absent, where the field cannot be without one. */
  { kind: 'string' | 'int' | 'bool'; zero?: '' } | { kind: 'list'; of: Field } | Structure

export type Structure = {
  kind: 'structure'
  fields: ReadonlyMap<string, Field>
  /** The names of the fields without their case. */
  folded: ReadonlyMap<string, string>
  /** Null stands for none at all; in place of any other structure it is worth a warning. */
  nullable: boolean
}

const made = new Map<string, Structure>()

/** The fields of a version of the specification. */
export function fieldsOfVersion(version: string): Structure {
  const known = made.get(version)
  if (known) return known
  const structure = fieldOf(IgnitionConfig, '', version, specHasField(version)) as Structure
  made.set(version, structure)
  return structure
}

/** A name without its case, as Go compares keys: two letters beyond ASCII count as `s` and `k`. */
export const foldCase = (name: string): string =>
  name.toLowerCase().replaceAll('\u017f', 's').replaceAll('\u212a', 'k')

/** Only in 3.2 could these be absent as a whole. */
const nullableIn32 = new Set(['storage.luks.clevis', 'storage.luks.clevis.custom'])
/** Before 3.3 these could not be without a value; where a text has none it is empty. */
const requiredBefore33 = new Set([
  'storage.links.target',
  'storage.luks.clevis.custom.config',
  'storage.luks.clevis.custom.pin',
])

function fieldOf(
  schema: z.core.$ZodType,
  path: string,
  version: string,
  known: (path: string) => boolean,
): Field {
  const { def } = schema._zod as unknown as { def: Definition }
  switch (def.type) {
    case 'optional': {
      const field = fieldOf(def.innerType!, path, version, known)
      return field.kind === 'string' && version < '3.3.0' && requiredBefore33.has(path)
        ? { kind: 'string', zero: '' }
        : field
    }
    case 'default':
      return { kind: 'string', zero: '' }
    case 'array': {
      const of = fieldOf(def.element!, path, version, known)
      return { kind: 'list', of: of.kind === 'string' ? { kind: 'string', zero: '' } : of }
    }
    case 'object': {
      const fields = new Map<string, Field>()
      for (const [name, child] of Object.entries(def.shape!)) {
        const at = path === '' ? name : `${path}.${name}`
        if (known(at)) fields.set(name, fieldOf(child, at, version, known))
      }
      const folded = new Map([...fields.keys()].map((name) => [foldCase(name), name]))
      return { kind: 'structure', fields, folded, nullable: version === '3.2.0' && nullableIn32.has(path) }
    }
    case 'number':
      return { kind: 'int' }
    case 'boolean':
      return { kind: 'bool' }
    case 'string':
      return { kind: 'string' }
  }
}

/** The part of a schema's definition that the specification's fields have. */
type Definition = {
  type: 'optional' | 'default' | 'array' | 'object' | 'number' | 'boolean' | 'string'
  innerType?: z.core.$ZodType
  element?: z.core.$ZodType
  shape?: Record<string, z.core.$ZodType>
}
