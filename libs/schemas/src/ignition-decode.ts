import type { IgnitionConfig } from './ignition.ts'
import { type Field, fieldsOfVersion, foldCase, type Structure } from './ignition-fields.ts'
import type { IgnitionFinding, IgnitionPath } from './ignition-finding.ts'
import { childOf, type JsonNode } from './ignition-json.ts'

/** A value of a type that its field cannot have, at a path. It is told of where the value ends, or where its bracket does. */
export type TypeFault = { path: string; message: string; offset: number }

/**
 * Reads a config by the fields of its version, the way Go's decoder does: keys count in any case, what is there twice
 * is read on top of what was there first, null leaves alone what cannot be absent. The first wrong type ends it.
 */
export function decodeIgnition(
  root: JsonNode,
  version: string,
): { ok: true; config: IgnitionConfig } | { ok: false; fault: TypeFault } {
  const decoder = new Decoder()
  const config = decoder.decode(root, fieldsOfVersion(version), undefined, [])
  if (decoder.fault) return { ok: false, fault: decoder.fault }
  return { ok: true, config: config as IgnitionConfig }
}

const versionStub: Structure = structureOf({
  ignition: structureOf({ version: { kind: 'string', zero: '' } }),
})

/** What a text says its version is, which is looked for before anything else is; undefined when it says nothing. */
export function decodeVersion(
  root: JsonNode,
): { ok: true; version: string | undefined } | { ok: false; fault: TypeFault } {
  const decoder = new Decoder()
  const stub = decoder.decode(root, versionStub, undefined, []) as
    | { ignition?: { version?: string } }
    | undefined
  if (decoder.fault) return { ok: false, fault: decoder.fault }
  return { ok: true, version: stub?.ignition?.version }
}

/**
 * Keys that no field has by exactly that name, whether or not they were read, and nulls in place of a structure. Keys
 * below something that is not in the text by its exact name are not looked at.
 */
export function findUnusedKeys(config: IgnitionConfig, root: JsonNode, version: string): IgnitionFinding[] {
  const findings: IgnitionFinding[] = []
  const visit = (value: unknown, field: Field, node: JsonNode | undefined, path: IgnitionPath): void => {
    if (!node) return
    if (field.kind === 'list') {
      for (const [index, item] of ((value ?? []) as unknown[]).entries()) {
        visit(item, field.of, childOf(node, index), [...path, index])
      }
    }
    if (field.kind !== 'structure' || (field.nullable && value === undefined)) return
    if (node.kind !== 'object') {
      findings.push({ path, severity: 'warning', message: 'null stands where a structure belongs' })
      return
    }
    for (const key of new Set(node.entries.map((entry) => entry.key))) {
      if (field.fields.has(key)) continue
      findings.push({
        path: [...path, key],
        severity: 'warning',
        message: `unused key ${key}${keyRemark(field, key)}`,
        atKey: true,
      })
    }
    for (const [name, child] of field.fields) {
      visit((value as Record<string, unknown> | undefined)?.[name], child, childOf(node, name), [
        ...path,
        name,
      ])
    }
  }
  visit(config, fieldsOfVersion(version), root, [])
  return findings
}

function keyRemark(field: Structure, key: string): string {
  const meant = field.folded.get(foldCase(key))
  return meant === undefined ? '' : `; it is read as ${meant}, which is how to write it`
}

function structureOf(fields: Record<string, Field>): Structure {
  const names = Object.keys(fields)
  return {
    kind: 'structure',
    fields: new Map(Object.entries(fields)),
    folded: new Map(names.map((name) => [foldCase(name), name])),
    nullable: false,
  }
}

const int64Min = -(2n ** 63n)
const int64Max = 2n ** 63n - 1n

class Decoder {
  /** The first one. */
  fault: TypeFault | undefined

  /** Reads a value on top of what is there already. */
  decode(node: JsonNode, field: Field, before: unknown, path: IgnitionPath): unknown {
    if (node.kind === 'null') return atNull(field, before)
    switch (field.kind) {
      case 'structure':
        if (node.kind !== 'object') return this.#mismatch(node, field, before, path)
        return this.#structure(node, field, before, path)
      case 'list':
        if (node.kind !== 'list') return this.#mismatch(node, field, before, path)
        return this.#list(node, field, before, path)
      case 'string':
      case 'bool':
        return node.kind === field.kind ? node.value : this.#mismatch(node, field, before, path)
      case 'int': {
        const isInteger = node.kind === 'number' && /^-?\d+$/.test(node.text)
        const value = isInteger ? BigInt(node.text) : undefined
        if (value === undefined || value < int64Min || value > int64Max) {
          return this.#mismatch(node, field, before, path)
        }
        return Number(value)
      }
    }
  }

  #structure(
    node: Extract<JsonNode, { kind: 'object' }>,
    field: Structure,
    before: unknown,
    path: IgnitionPath,
  ): Record<string, unknown> {
    const value = { ...((before ?? zeroOf(field)) as Record<string, unknown>) }
    for (const { key, value: child } of node.entries) {
      const name = field.fields.has(key) ? key : field.folded.get(foldCase(key))
      if (name === undefined) continue
      const read = this.decode(child, field.fields.get(name)!, value[name], [...path, name])
      if (read === undefined) delete value[name]
      else value[name] = read
    }
    return value
  }

  #list(
    node: Extract<JsonNode, { kind: 'list' }>,
    field: Extract<Field, { kind: 'list' }>,
    before: unknown,
    path: IgnitionPath,
  ): unknown[] {
    const earlier = (before ?? []) as unknown[]
    return node.items.map((item, index) =>
      this.decode(item, field.of, earlier[index] ?? zeroOf(field.of), [...path, index]),
    )
  }

  #mismatch(node: JsonNode, field: Field, before: unknown, path: IgnitionPath): unknown {
    const offset = node.kind === 'object' || node.kind === 'list' ? node.start + 1 : node.end
    const found = node.kind === 'number' && field.kind === 'int' ? node.text : articled(node.kind)
    const at = ['$', ...path].join('.')
    this.fault ??= {
      path: at,
      message: `${at} must be ${articled(field.kind)}, and is ${found}`,
      offset,
    }
    return before
  }
}

function atNull(field: Field, before: unknown): unknown {
  if (field.kind === 'structure') return field.nullable ? undefined : before
  return field.kind === 'string' && field.zero !== undefined ? before : undefined
}

/** What an entry of a list is before anything of it is read; structures have their keys, empty. */
function zeroOf(field: Field): unknown {
  if (field.kind === 'string') return ''
  if (field.kind !== 'structure') return undefined
  const zeros = [...field.fields].filter(([, child]) => child.kind === 'string' && child.zero !== undefined)
  return Object.fromEntries(zeros.map(([name]) => [name, '']))
}

const names = {
  string: 'a string',
  int: 'an integer',
  number: 'a number',
  bool: 'true or false',
  list: 'a list',
  structure: 'an object',
  object: 'an object',
  null: 'null',
}
const articled = (kind: keyof typeof names): string => names[kind]
