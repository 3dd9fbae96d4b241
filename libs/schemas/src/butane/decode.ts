import type { ConfigPath, Finding } from './config-path.ts'
import { asBool, asInt, type Resolved, resolveScalar, tagOf } from './scalars.ts'
import { type SourceNode, textOf } from './source.ts'

/** What a field of the source may hold. */
export type Shape =
  /** Bytes are a string, or binary data in base64. */
  | { kind: 'string' | 'bytes' | 'int' | 'bool' | 'labels' | 'document' }
  | { kind: 'list'; of: Shape }
  | {
      kind: 'struct'
      name: string
      fields: Readonly<Record<string, Shape>>
      /** Nothing in its place is none at all, and not worth a warning. */
      nullable?: boolean
    }

export type Struct = Extract<Shape, { kind: 'struct' }>
type ScalarKind = 'string' | 'bytes' | 'int' | 'bool'
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

/**
 * A warning for each key that no field of the version has, in the order of the text, and for each section that the
 * text has nothing for, or an alias, so that its keys were not looked at. `value` is what was decoded.
 */
export function findUnusedKeys(
  root: SourceNode | undefined,
  shape: Shape,
  value: unknown,
  path: ConfigPath = [],
): Finding[] {
  if (!root) return []
  if (shape.kind === 'list') {
    if (root.kind !== 'list') return []
    // Items that are nothing are not there in what was decoded, so that those behind are taken for others.
    return ((value ?? []) as unknown[]).flatMap((item, index) =>
      findUnusedKeys(root.items[index], shape.of, item, [...path, index]),
    )
  }
  if (shape.kind !== 'struct' || (shape.nullable === true && value === undefined)) return []
  if (root.kind !== 'map') {
    const message = `an alias, or nothing, stands in the place of ${shape.name}; its keys are not checked`
    return [{ space: 'yaml', severity: 'warning', path, message }]
  }
  return root.entries.flatMap(({ key, value: child }) => {
    const name = textOf(key) ?? ''
    const field = fieldOf(shape, name)
    if (field) {
      return findUnusedKeys(child, field, (value as Decoded | undefined)?.[name], [...path, name])
    }
    const message = `unused key ${name}`
    return [{ space: 'yaml', severity: 'warning', path: [...path, name], message, onKey: true }] as Finding[]
  })
}

const fieldOf = (shape: Struct, name: string): Shape | undefined =>
  Object.hasOwn(shape.fields, name) ? shape.fields[name] : undefined

const document: Shape = { kind: 'document' }
const mergeKey = '<<'

class Decoder {
  readonly problems: string[] = []
  /** Targets of the aliases that are being followed. */
  readonly #followed = new Set<SourceNode>()
  #values = 0

  decode(node: SourceNode, shape: Shape): unknown {
    if (++this.#values > valuesMax) {
      if (this.#values === valuesMax + 1) this.#fail(node, `has more than ${valuesMax} values`)
      return undefined
    }
    if (node.kind === 'alias') return this.#follow(node, (target) => this.decode(target, shape))
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
      case 'bytes':
      case 'int':
      case 'bool':
        return this.#scalar(node, shape.kind)
    }
  }

  #follow<T>(
    alias: Extract<SourceNode, { kind: 'alias' }>,
    decode: (target: SourceNode) => T,
  ): T | undefined {
    if (this.#followed.has(alias.target)) {
      this.#fail(alias, 'an anchor contains itself')
      return undefined
    }
    this.#followed.add(alias.target)
    const value = decode(alias.target)
    this.#followed.delete(alias.target)
    return value
  }

  #struct(node: SourceNode, shape: Struct): Decoded | undefined {
    if (node.kind !== 'map') return this.#absent(node, shape)
    const value: Decoded = {}
    if (!this.#uniqueKeys(node)) return value
    for (const entry of node.entries) {
      if (isMergeKey(entry.key)) Object.assign(value, { ...this.#merged(entry.value, shape), ...value })
    }
    for (const entry of node.entries) {
      if (isMergeKey(entry.key)) continue
      const name = this.#scalar(entry.key, 'string') as string | undefined
      const field = name === undefined ? undefined : fieldOf(shape, name)
      if (!field) continue
      const child = this.decode(entry.value, field)
      if (child === undefined) delete value[name!]
      else value[name!] = child
    }
    return value
  }

  /** The maps that a merge key names; the first that has a key wins. */
  #merged(node: SourceNode, shape: Struct): Decoded {
    if (node.kind === 'alias') return this.#follow(node, (target) => this.#merged(target, shape)) ?? {}
    if (node.kind === 'map') return this.#struct(node, shape) ?? {}
    if (node.kind === 'list') {
      return Object.assign({}, ...node.items.toReversed().map((item) => this.#merged(item, shape)))
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
      const resolved = this.#resolve(node)
      if (!resolved || resolved.type === 'null') return undefined
      if (resolved.type === 'binary') return textOfBytes(resolved.value)
      return resolved.type === 'int' ? Number(resolved.value) : resolved.value
    }
    if (node.kind !== 'map' || !this.#uniqueKeys(node)) return undefined
    const entries = node.entries.map(({ key, value }) => [textOf(key) ?? '', this.decode(value, document)])
    return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
  }

  #scalar(node: SourceNode, kind: ScalarKind): string | number | bigint | boolean | Uint8Array | undefined {
    if (node.kind === 'alias') return this.#follow(node, (target) => this.#scalar(target, kind))
    if (node.kind !== 'scalar') return this.#mismatch(node, { kind })
    const resolved = this.#resolve(node)
    if (!resolved || resolved.type === 'null') return undefined
    switch (kind) {
      case 'string':
        return resolved.type === 'binary' ? textOfBytes(resolved.value) : node.text
      case 'bytes':
        return resolved.type === 'binary' ? resolved.value : Buffer.from(node.text, 'utf8')
      case 'bool':
        return asBool(resolved) ?? this.#mismatch(node, { kind })
      case 'int':
        return asInt(resolved) ?? this.#mismatch(node, { kind })
    }
  }

  #resolve(
    node: Extract<SourceNode, { kind: 'scalar' }>,
  ): Exclude<Resolved, { type: 'invalid' }> | undefined {
    const resolved = resolveScalar(node)
    if (resolved.type !== 'invalid') return resolved
    this.#fail(node, resolved.message)
    return undefined
  }

  #uniqueKeys(node: Extract<SourceNode, { kind: 'map' }>): boolean {
    const lines = new Map<string, number>()
    let unique = true
    for (const { key } of node.entries) {
      const name = textOf(key)
      if (name === undefined) continue
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

/** In quotes it is a key like others. */
const isMergeKey = (key: SourceNode): boolean =>
  key.kind === 'scalar' && key.text === mergeKey && key.plain && (key.tag === undefined || key.tag === '!')

const textOfBytes = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8')

const shownMax = 10
const shown = (node: SourceNode): string => {
  const text = textOf(node) ?? ''
  return text.length > shownMax ? `${text.slice(0, 7)}...` : text
}

const typeTag = (node: SourceNode): string =>
  node.kind === 'scalar' ? `!!${tagOf(resolveScalar(node))}` : '!!str'

function describeShape(shape: Shape): string {
  if (shape.kind === 'list') return `a list of ${describeShape(shape.of)}`
  if (shape.kind === 'struct') return shape.name
  if (shape.kind === 'labels') return 'a map of strings'
  if (shape.kind === 'bytes') return 'string'
  return shape.kind === 'document' ? 'a document' : shape.kind
}
