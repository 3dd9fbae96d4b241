import {
  Composer,
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  type Pair,
  Parser,
} from 'yaml'
import type { ConfigPath } from './config-path.ts'

/** Both count from 1; columns count characters. */
export type Place = { line: number; column: number }

export type SourceNode =
  | { kind: 'scalar'; at: Place; text: string; plain: boolean; tag: string | undefined }
  | { kind: 'map'; at: Place; entries: SourceEntry[] }
  | { kind: 'list'; at: Place; items: SourceNode[] }
  | { kind: 'alias'; at: Place; target: SourceNode }

export type SourceEntry = { key: SourceNode; value: SourceNode }

export type Parsed = { ok: true; root: SourceNode | undefined } | { ok: false; message: string }

/** Documents nest at most this deep. */
const depthMax = 100
/** Larger sources are refused before they are parsed. */
const sourceLengthMax = 16 * 1024 * 1024

/** Parses the first document of a YAML text; scalars stay text, for their type depends on the field they are for. */
export function parseSource(text: string): Parsed {
  if (text.length > sourceLengthMax) {
    return { ok: false, message: `the source has more than ${sourceLengthMax} characters` }
  }
  const lineCounter = new LineCounter()
  // The mark of the byte order is no character of the text.
  const source = text.replace(/^\ufeff/, '')
  const composer = new Composer({ schema: 'failsafe', uniqueKeys: false, keepSourceTokens: true })
  try {
    const [document] = [...composer.compose(tokensOf(source, lineCounter))]
    if (!document) return { ok: true, root: undefined }
    const [problem] = document.errors
    if (problem) {
      return { ok: false, message: `line ${lineCounter.linePos(problem.pos[0]).line}: ${problem.message}` }
    }
    const reader = new Reader(source, lineCounter)
    const root = document.contents === null ? undefined : reader.node(document.contents, undefined, 0)
    return { ok: true, root }
  } catch (error) {
    if (error instanceof SourceProblem) return { ok: false, message: error.message }
    throw error
  }
}

/** Place of the value at a path, or of its nearest ancestor in the source; an alias hides what it stands for. */
export function placeOf(root: SourceNode | undefined, path: ConfigPath, onKey = false): Place | undefined {
  let at = root
  if (!at) return undefined
  for (const [index, part] of path.entries()) {
    const entry: SourceEntry | undefined =
      at.kind === 'map' ? at.entries.findLast(({ key }) => textOf(key) === String(part)) : undefined
    if (onKey && entry && index === path.length - 1) return entry.key.at
    const next: SourceNode | undefined =
      at.kind === 'list' && typeof part === 'number' ? at.items[part] : entry?.value
    if (!next) break
    at = next
  }
  return at.at
}

export const textOf = (node: SourceNode): string | undefined =>
  node.kind === 'scalar' ? node.text : node.kind === 'alias' ? textOf(node.target) : undefined

class SourceProblem extends Error {}

/** Lexemes of the library, of which the mark of a scalar says that the next one is its text. */
const openers = new Set(['[', '{'])
const closers = new Set([']', '}'])
const indicators = new Set(['-', '?'])
const scalarMark = '\x1f'

/**
 * The library's tokens of a text. It collects all of them and then composes by recursion, so that a few MB of brackets
 * would take gigabytes: nesting is counted as the text is read, by brackets, indicators of one line and indentation.
 */
function* tokensOf(source: string, lineCounter: LineCounter): ReturnType<Parser['parse']> {
  lineCounter.addNewLine(0)
  const parser = new Parser(lineCounter.addNewLine)
  const indents: number[] = []
  let [flow, compact, indent] = [0, 0, 0]
  let [isLineStart, isText] = [true, false]
  for (const lexeme of new Lexer().lex(source)) {
    if (!isText && openers.has(lexeme)) flow++
    else if (!isText && closers.has(lexeme)) flow--
    else if (!isText && flow === 0 && indicators.has(lexeme)) compact++
    if (isLineStart && /^ +$/.test(lexeme)) indent = lexeme.length
    else if (isLineStart && !/^[#\s]/.test(lexeme)) {
      if (flow === 0) {
        while (indents.length > 0 && indents.at(-1)! >= indent) indents.pop()
        indents.push(indent)
      }
      isLineStart = false
    }
    if (lexeme.includes('\n')) [compact, indent, isLineStart] = [0, 0, true]
    if (Math.max(flow, compact, indents.length) > depthMax) throw tooDeep()
    isText = lexeme === scalarMark
    yield* parser.next(lexeme)
  }
  yield* parser.end()
}

const tooDeep = (): SourceProblem => new SourceProblem(`nesting is deeper than ${depthMax}`)

type Token = { type: string; offset: number }

/** Turns the library's nodes into ours and gives each its place, which is that of its anchor or tag if it has one. */
class Reader {
  readonly #text: string
  readonly #lines: LineCounter
  readonly #anchors = new Map<string, SourceNode>()

  constructor(text: string, lines: LineCounter) {
    this.#text = text
    this.#lines = lines
  }

  node(node: unknown, before: readonly Token[] | undefined, depth: number): SourceNode {
    if (depth > depthMax) throw tooDeep()
    const properties = before?.find(({ type }) => type === 'anchor' || type === 'tag')
    const at = this.#place(properties?.offset ?? startOf(node))
    if (isAlias(node)) {
      const target = this.#anchors.get(node.source)
      if (!target) throw new SourceProblem(`unknown anchor '${node.source}' referenced`)
      return { kind: 'alias', at, target }
    }
    const read = emptyNode(node, at)
    // What is within may name the whole.
    const anchor = (node as { anchor?: string } | null)?.anchor
    if (anchor !== undefined) this.#anchors.set(anchor, read)
    if (isMap(node) && read.kind === 'map') {
      const inFlow = node.srcToken?.type === 'flow-collection'
      for (const pair of node.items.filter(isPair)) read.entries.push(this.#entry(pair, inFlow, depth))
    }
    if (isSeq(node) && read.kind === 'list') {
      const tokens = (node.srcToken as { items?: { start?: Token[] }[] } | undefined)?.items ?? []
      const aligned = tokens.length === node.items.length
      for (const [index, item] of node.items.entries()) {
        const start = aligned ? tokens[index]?.start : undefined
        read.items.push(this.node(emptyAfter(item, start, 'seq-item-ind') ?? item, start, depth + 1))
      }
    }
    return read
  }

  #entry(pair: Pair, inFlow: boolean, depth: number): SourceEntry {
    const token = pair.srcToken as { start?: Token[]; sep?: Token[] } | undefined
    const key = this.node(
      emptyAfter(pair.key, token?.start, 'explicit-key-ind') ?? pair.key,
      token?.start,
      depth + 1,
    )
    const value = inFlow ? undefined : emptyAfter(pair.value, token?.sep, 'map-value-ind')
    const colon = token?.sep?.find(({ type }) => type === 'map-value-ind')
    const end = colon ? colon.offset + 1 : (pair.key as Node | null)?.range?.[1]
    const absent = isEmpty(pair.value) && end !== undefined ? { offset: this.#nextToken(end) } : pair.value
    return { key, value: this.node(value ?? absent, token?.sep, depth + 1) }
  }

  /** Behind white space and comments. */
  #nextToken(offset: number): number {
    const rest = /(?:\s|#[^\n]*)*/y
    rest.lastIndex = offset
    return offset + (rest.exec(this.#text)?.[0].length ?? 0)
  }

  #place(offset: number): Place {
    const { line, col } = this.#lines.linePos(offset)
    const start = this.#lines.lineStarts[line - 1] ?? 0
    const column = col < 1 ? 1 : [...this.#text.slice(start, offset)].length + 1
    return { line, column }
  }
}

/** A block list starts at its first dash, a block map at its first key, the others where the library says. */
function startOf(node: unknown): number {
  if (isMap(node) && node.srcToken?.type === 'block-map') {
    const pair = node.items[0]
    const token = pair?.srcToken as { start?: Token[] } | undefined
    const first = token?.start?.find(({ type }) => ['anchor', 'tag', 'explicit-key-ind'].includes(type))
    return first?.offset ?? startOf(pair?.key)
  }
  if (isSeq(node) && node.srcToken?.type === 'block-seq') {
    const dash = node.srcToken.items[0]?.start.find(({ type }) => type === 'seq-item-ind')
    if (dash) return dash.offset
  }
  const offset = (node as { offset?: number } | undefined)?.offset
  return (node as Node | null)?.range?.[0] ?? offset ?? 0
}

/** What is not there is right behind the sign that announces it. */
function emptyAfter(
  node: unknown,
  tokens: readonly Token[] | undefined,
  sign: string,
): { offset: number } | undefined {
  const announced = isEmpty(node) && tokens?.find(({ type }) => type === sign)
  return announced ? { offset: announced.offset + 1 } : undefined
}

/** Neither a value nor an anchor or a tag. */
const isEmpty = (node: unknown): boolean =>
  node === null ||
  (isScalar(node) &&
    (node.source ?? '') === '' &&
    node.type === 'PLAIN' &&
    node.anchor === undefined &&
    node.tag === undefined)

/** Without what is in it. */
function emptyNode(node: unknown, at: Place): SourceNode {
  if (isMap(node)) return { kind: 'map', at, entries: [] }
  if (isSeq(node)) return { kind: 'list', at, items: [] }
  if (!isScalar(node)) return { kind: 'scalar', at, text: '', plain: true, tag: undefined }
  // The library has values of its own for some tags.
  const text = node.source ?? String(node.value ?? '')
  return { kind: 'scalar', at, text, plain: node.type === 'PLAIN', tag: node.tag }
}
