import type { Place, SourceNode } from '@kiln/schemas/butane'
import { findDefaultExport, type Literal } from './literals.ts'

const depthMax = 100

/** A value that a module made, as a source whose parts have their places in the module's text. */
export function sourceOfValue(value: unknown, text: string): SourceNode {
  const lineStarts = [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)]
  const placeAt = (offset: number): Place => {
    const line = lineStarts.findLastIndex((start) => start <= offset)
    return { line: line + 1, column: [...text.slice(lineStarts[line], offset)].length + 1 }
  }
  const top: Place = { line: 1, column: 1 }
  return nodeOf(value, findDefaultExport(text), { placeAt, above: top, depth: 0 })
}

type Around = { placeAt: (offset: number) => Place; above: Place; depth: number }

function nodeOf(value: unknown, literal: Literal | undefined, around: Around): SourceNode {
  const at = literal ? around.placeAt(literal.offset) : around.above
  const inner = { ...around, above: at, depth: around.depth + 1 }
  if (around.depth > depthMax) throw new RangeError(`the config is nested deeper than ${depthMax}`)
  if (Array.isArray(value)) {
    const items = value.map((item, index) => nodeOf(item, literal?.items?.[index], inner))
    return { kind: 'list', at, items }
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([name, child]) => {
      const field = literal?.fields?.get(name)
      const key = scalar(name, field ? around.placeAt(field.offset) : at, false)
      return { key, value: nodeOf(child, field?.value, inner) }
    })
    return { kind: 'map', at, entries }
  }
  return scalar(value === null ? '' : String(value), at, typeof value !== 'string')
}

const scalar = (text: string, at: Place, plain: boolean): SourceNode => ({
  kind: 'scalar',
  at,
  text,
  plain,
  tag: undefined,
})
