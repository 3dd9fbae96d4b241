import type { ConfigPath, Finding } from './config-path.ts'
import { asBool, resolveScalar } from './scalars.ts'
import { type SourceNode, textOf } from './source.ts'

/** What a field of the source may hold. */
export type Shape =
  | { kind: 'string' | 'int' | 'bool' | 'labels' | 'document' }
  | { kind: 'list'; of: Shape }
  | { kind: 'struct'; name: string; fields: Readonly<Record<string, Shape>> }

export type Struct = Extract<Shape, { kind: 'struct' }>
// biome-ignore lint/suspicious/noExplicitAny: the shape of a decoded source is known only by its table of fields
export type Decoded = Record<string, any>

/** Values that aliases may be expanded to, all together: a short text must not become a huge config. */
const valuesMax = 500_000

/** Reads a source by its table of fields. Keys that the table lacks are found by `findUnusedKeys`. */
export function decodeSource(
  root: SourceNode | undefined,
  shape: Struct,
): { value: Decoded; problems: string[] } {
  const decoder = new Decoder()
  const value = root ? decoder.decode(root, shape) : undefined
  return { value: (value as Decoded | undefined) ?? {}, problems: decoder.problems }
}

/** A warning for each key that no field of the version has, in the order of the text. */
export function findUnusedKeys(root: SourceNode | undefined, shape: Shape, path: ConfigPath = []): Finding[] {
  if (!root) return []
  if (shape.kind === 'list' && root.kind === 'list') {
    return root.items.flatMap((item, index) => findUnusedKeys(item, shape.of, [...path, index]))
  }
  if (shape.kind !== 'struct' || root.kind !== 'map') return []
  return root.entries.flatMap(({ key, value }) => {
    const name = textOf(key) ?? ''
    const field = fieldOf(shape, name)
    if (field) return findUnusedKeys(value, field, [...path, name])
    const message = `unused key ${name}`
    return [{ space: 'yaml', severity: 'warning', path: [...path, name], message, onKey: true }] as Finding[]
  })
}

const fieldOf = (shape: Struct, name: string): Shape | undefined =>
  Object.hasOwn(shape.fields, name) ? shape.fields[name] : undefined

const document: Shape = { kind: 'document' }

class Decoder {
  readonly problems: string[] = []
  #values = 0

  decode(node: SourceNode, shape: Shape): unknown {
    if (++this.#values > valuesMax) {
      if (this.#values === valuesMax + 1) this.#fail(node, `has more than ${valuesMax} values`)
      return undefined
    }
    if (node.kind === 'alias') return this.decode(node.target, shape)
    switch (shape.kind) {
      case 'struct':
        return this.#struct(node, shape)
      case 'list':
        return this.#list(node, shape)
      case 'labels':
        return this.#labels(node)
      case 'document':
        return this.#document(node)
      case 'string':
      case 'int':
      case 'bool':
        return this.#scalar(node, shape.kind)
    }
  }

  #struct(node: SourceNode, shape: Struct): Decoded | undefined {
    if (node.kind !== 'map') return this.#absent(node, shape)
    const value: Decoded = {}
    if (!this.#uniqueKeys(node)) return value
    for (const entry of node.entries) {
      const name = textOf(entry.key) ?? ''
      if (name === '<<') Object.assign(value, { ...this.#merged(entry.value, shape), ...value })
    }
    for (const entry of node.entries) {
      const name = textOf(entry.key) ?? ''
      const field = fieldOf(shape, name)
      if (!field) continue
      const child = this.decode(entry.value, field)
      if (child === undefined) delete value[name]
      else value[name] = child
    }
    return value
  }

  /** The maps that a merge key names; the first that has a key wins. */
  #merged(node: SourceNode, shape: Struct): Decoded {
    const target = node.kind === 'alias' ? node.target : node
    if (target.kind === 'map') return this.#struct(target, shape) ?? {}
    if (target.kind === 'list') {
      return Object.assign({}, ...target.items.toReversed().map((item) => this.#merged(item, shape)))
    }
    this.#fail(node, 'map merge requires map or sequence of maps as the value')
    return {}
  }

  #list(node: SourceNode, shape: { of: Shape; kind: 'list' }): unknown[] | undefined {
    if (node.kind !== 'list') return this.#absent(node, shape)
    return node.items.map((item) => this.decode(item, shape.of)).filter((item) => item !== undefined)
  }

  #labels(node: SourceNode): Record<string, string> | undefined {
    if (node.kind !== 'map') return this.#absent(node, { kind: 'labels' })
    if (!this.#uniqueKeys(node)) return {}
    return Object.fromEntries(
      node.entries.map(({ key, value }) => [textOf(key) ?? '', String(this.#scalar(value, 'string') ?? '')]),
    )
  }

  /** A document of its own: whatever YAML says it is. */
  #document(node: SourceNode): unknown {
    if (node.kind === 'list') return node.items.map((item) => this.decode(item, document) ?? null)
    if (node.kind === 'scalar') {
      const resolved = resolveScalar(node)
      return resolved.type === 'null' ? undefined : resolved.value
    }
    if (node.kind !== 'map' || !this.#uniqueKeys(node)) return undefined
    const entries = node.entries.map(({ key, value }) => [textOf(key) ?? '', this.decode(value, document)])
    return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
  }

  #scalar(node: SourceNode, kind: 'string' | 'int' | 'bool'): string | number | boolean | undefined {
    if (node.kind === 'alias') return this.#scalar(node.target, kind)
    if (node.kind !== 'scalar') return this.#mismatch(node, { kind })
    const resolved = resolveScalar(node)
    if (resolved.type === 'null') return undefined
    if (kind === 'string') return resolved.type === 'string' ? resolved.value : node.text
    if (kind === 'bool') return asBool(resolved) ?? this.#mismatch(node, { kind })
    if (resolved.type === 'int') return resolved.value
    return resolved.type === 'float' ? Math.trunc(resolved.value) : this.#mismatch(node, { kind })
  }

  #uniqueKeys(node: Extract<SourceNode, { kind: 'map' }>): boolean {
    const lines = new Map<string, number>()
    let unique = true
    for (const { key } of node.entries) {
      const name = textOf(key) ?? ''
      const earlier = lines.get(name)
      if (earlier !== undefined) {
        this.#fail(key, `mapping key ${JSON.stringify(name)} already defined at line ${earlier}`)
        unique = false
      } else lines.set(name, key.at.line)
    }
    return unique
  }

  /** Nothing is no list and no section; anything else is the wrong type. */
  #absent(node: SourceNode, shape: Shape): undefined {
    if (node.kind === 'scalar' && resolveScalar(node).type === 'null') return undefined
    return this.#mismatch(node, shape)
  }

  #mismatch(node: SourceNode, shape: Shape): undefined {
    const found =
      node.kind === 'map' ? '!!map' : node.kind === 'list' ? '!!seq' : `${typeTag(node)} \`${shown(node)}\``
    this.#fail(node, `cannot unmarshal ${found} into ${describeShape(shape)}`)
  }

  #fail(node: SourceNode, message: string): void {
    this.problems.push(`line ${node.at.line}: ${message}`)
  }
}

const shownMax = 10
const shown = (node: SourceNode): string => {
  const text = textOf(node) ?? ''
  return text.length > shownMax ? `${text.slice(0, 7)}...` : text
}

function typeTag(node: SourceNode): string {
  if (node.kind !== 'scalar') return '!!str'
  const { type } = resolveScalar(node)
  return type === 'string' ? '!!str' : `!!${type}`
}

function describeShape(shape: Shape): string {
  if (shape.kind === 'list') return `a list of ${describeShape(shape.of)}`
  if (shape.kind === 'struct') return shape.name
  if (shape.kind === 'labels') return 'a map of strings'
  return shape.kind === 'document' ? 'a document' : shape.kind
}
