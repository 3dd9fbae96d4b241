/** Where a value of a JSON text starts; both count from 1, columns in bytes. */
export type Position = { line: number; column: number }

/** A JSON text that does not parse. `at` is the place behind the character that cannot be there, as Go counts it. */
export type JsonFault = { message: string; at: Position }

/** A value with the places of its first character and of what follows it, as offsets into the text. */
export type JsonNode = { start: number; end: number } & (
  | { kind: 'object'; entries: JsonEntry[] }
  | { kind: 'list'; items: JsonNode[] }
  | { kind: 'string'; value: string }
  | { kind: 'number'; text: string }
  | { kind: 'bool'; value: boolean }
  | { kind: 'null' }
)
export type JsonEntry = { key: string; keyStart: number; value: JsonNode }

/** A JSON text as it is written: with keys that are there twice, and numbers as their digits. */
export type ParsedJson = { ok: true; root: JsonNode; positionOf: (offset: number) => Position }

/** The reference's own bound. */
const depthMax = 10_000

/** Parses JSON (RFC 8259) and keeps the place of everything in it. */
export function parseJson(text: string): ParsedJson | { ok: false; fault: JsonFault } {
  const places = new Places(text)
  try {
    const root = new Scanner(text).document()
    return { ok: true, root, positionOf: (offset) => places.positionOf(offset) }
  } catch (error) {
    if (error instanceof ScanError) {
      return { ok: false, fault: { message: error.message, at: places.positionBehind(error.offset) } }
    }
    throw error
  }
}

/** The value of a key in an object; of a key that is there twice the last counts. */
export function childOf(node: JsonNode, key: string | number): JsonNode | undefined {
  if (node.kind === 'list') return typeof key === 'number' ? node.items[key] : undefined
  if (node.kind !== 'object' || typeof key !== 'string') return undefined
  return node.entries.findLast((entry) => entry.key === key)?.value
}

/**
 * Offset that a finding about a path is placed at: of the value, or of its nearest ancestor that the text has. Objects
 * and lists are placed behind their bracket, as Ignition's reports have it.
 */
export function offsetOfPath(root: JsonNode, path: readonly (string | number)[]): number {
  let at = root
  for (const key of path) {
    const child = childOf(at, key)
    if (!child) break
    at = child
  }
  return at.kind === 'object' || at.kind === 'list' ? at.start + 1 : at.start
}

/** Offset of the last key of a path; undefined when the text does not have it. */
export function offsetOfKey(root: JsonNode, path: readonly (string | number)[]): number | undefined {
  let at: JsonNode | undefined = root
  for (const key of path.slice(0, -1)) at = at && childOf(at, key)
  return at?.kind === 'object' ? at.entries.findLast(({ key }) => key === path.at(-1))?.keyStart : undefined
}

class ScanError extends Error {
  readonly offset: number

  constructor(message: string, offset: number) {
    super(message)
    this.offset = offset
  }
}

/** Lines and columns of one text. */
class Places {
  readonly #text: string
  readonly #lineStarts: number[] = [0]
  /** Bytes of UTF-8 before each character, as columns count bytes; absent when all are ASCII. */
  readonly #bytesBefore: Uint32Array | undefined

  constructor(text: string) {
    this.#text = text
    this.#bytesBefore = Buffer.byteLength(text) === text.length ? undefined : bytesBefore(text)
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) this.#lineStarts.push(at + 1)
  }

  positionOf(offset: number): Position {
    let low = 0
    let high = this.#lineStarts.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#lineStarts[middle]! <= offset) low = middle
      else high = middle - 1
    }
    const start = this.#lineStarts[low]!
    const bytes = this.#bytesBefore ? this.#bytesBefore[offset]! - this.#bytesBefore[start]! : offset - start
    return { line: low + 1, column: bytes + 1 }
  }

  /** The place one byte on; at the end of the text there is no further one. */
  positionBehind(offset: number): Position {
    const { line, column } = this.positionOf(offset)
    if (offset >= this.#text.length) return { line, column }
    return this.#text[offset] === '\n' ? { line: line + 1, column: 1 } : { line, column: column + 1 }
  }
}

function bytesBefore(text: string): Uint32Array {
  const before = new Uint32Array(text.length + 1)
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    // Each half of a surrogate pair stands for two of its four bytes.
    const bytes = code < 0x80 ? 1 : code < 0x800 || (code >= 0xd800 && code < 0xe000) ? 2 : 3
    before[at + 1] = before[at]! + bytes
  }
  return before
}

type Container = Extract<JsonNode, { kind: 'object' | 'list' }>
type OpenContainer = { node: Container; key: { key: string; keyStart: number } | undefined }

/** One pass over one text, without recursion, so that no nesting exhausts the stack. */
class Scanner {
  readonly #text: string
  readonly #open: OpenContainer[] = []
  #offset = 0

  constructor(text: string) {
    this.#text = text
  }

  document(): JsonNode {
    while (true) {
      let value = this.#begin()
      while (value) {
        const container = this.#open.at(-1)
        this.#space()
        if (!container) {
          if (this.#offset < this.#text.length) this.#refuse('after top-level value')
          return value
        }
        this.#add(container, value)
        if (this.#text[this.#offset] === ',') {
          this.#offset++
          if (container.node.kind === 'object') this.#key(container)
          break
        }
        const isObject = container.node.kind === 'object'
        if (this.#text[this.#offset] !== (isObject ? '}' : ']')) {
          this.#refuse(isObject ? 'after object key:value pair' : 'after array element')
        }
        value = this.#close()
      }
    }
  }

  #add({ node, key }: OpenContainer, value: JsonNode): void {
    if (node.kind === 'list') node.items.push(value)
    else node.entries.push({ ...key!, value })
  }

  /** A whole value; or, having opened a container that is not empty, undefined, and a value of it is next. */
  #begin(): JsonNode | undefined {
    this.#space()
    const start = this.#offset
    const first = this.#text[start]
    if (first !== '{' && first !== '[') return this.#scalar(start)
    if (this.#open.length >= depthMax) this.#refuse('exceeded max depth')
    const node: Container =
      first === '{'
        ? { kind: 'object', entries: [], start, end: start }
        : { kind: 'list', items: [], start, end: start }
    const container: OpenContainer = { node, key: undefined }
    this.#open.push(container)
    this.#offset++
    this.#space()
    if (this.#text[this.#offset] === (first === '{' ? '}' : ']')) return this.#close()
    if (first === '{') this.#key(container)
    return undefined
  }

  #close(): JsonNode {
    this.#offset++
    const { node } = this.#open.pop()!
    node.end = this.#offset
    return node
  }

  #key(container: OpenContainer): void {
    this.#space()
    const keyStart = this.#offset
    if (this.#text[keyStart] !== '"') this.#refuse('looking for beginning of object key string')
    container.key = { key: this.#string(), keyStart }
    this.#space()
    if (this.#text[this.#offset] !== ':') this.#refuse('after object key')
    this.#offset++
  }

  #scalar(start: number): JsonNode {
    switch (this.#text[start]) {
      case '"': {
        const value = this.#string()
        return { kind: 'string', value, start, end: this.#offset }
      }
      case 't':
      case 'f': {
        const value = this.#text[start] === 't'
        this.#word(String(value))
        return { kind: 'bool', value, start, end: this.#offset }
      }
      case 'n':
        this.#word('null')
        return { kind: 'null', start, end: this.#offset }
      default:
        this.#number()
        return { kind: 'number', text: this.#text.slice(start, this.#offset), start, end: this.#offset }
    }
  }

  #word(word: string): void {
    for (const letter of word) {
      if (this.#text[this.#offset] !== letter) this.#refuse(`in literal ${word} (expecting '${letter}')`)
      this.#offset++
    }
  }

  #number(): void {
    const negative = this.#text[this.#offset] === '-'
    if (negative) this.#offset++
    if (this.#text[this.#offset] === '0') this.#offset++
    else this.#digits(negative ? 'in numeric literal' : 'looking for beginning of value')
    if (this.#text[this.#offset] === '.') {
      this.#offset++
      this.#digits('after decimal point in numeric literal')
    }
    if (!/[eE]/.test(this.#text[this.#offset] ?? '')) return
    this.#offset++
    if (/[+-]/.test(this.#text[this.#offset] ?? '')) this.#offset++
    this.#digits('in exponent of numeric literal')
  }

  /** One digit at least. */
  #digits(where: string): void {
    const start = this.#offset
    while (isDigit(this.#text.charCodeAt(this.#offset))) this.#offset++
    if (this.#offset === start) this.#refuse(where)
  }

  #string(): string {
    const start = this.#offset++
    let escaped = false
    while (this.#text[this.#offset] !== '"') {
      const code = this.#text.charCodeAt(this.#offset)
      if (Number.isNaN(code) || code < 0x20) this.#refuse('in string literal')
      this.#offset++
      if (code !== backslash) continue
      escaped = true
      this.#escape()
    }
    this.#offset++
    if (!escaped) return this.#text.slice(start + 1, this.#offset - 1)
    // Half a surrogate pair becomes a replacement character, as no file name or file could hold it.
    return (JSON.parse(this.#text.slice(start, this.#offset)) as string).toWellFormed()
  }

  #escape(): void {
    const letter = this.#text[this.#offset]
    if (letter === undefined || !'bfnrt\\/"u'.includes(letter)) this.#refuse('in string escape code')
    this.#offset++
    for (let left = letter === 'u' ? 4 : 0; left > 0; left--) {
      if (!/[0-9a-fA-F]/.test(this.#text[this.#offset] ?? '')) {
        this.#refuse('in \\u hexadecimal character escape')
      }
      this.#offset++
    }
  }

  #space(): void {
    while (' \t\n\r'.includes(this.#text[this.#offset] ?? 'x')) this.#offset++
  }

  /** The character at hand cannot be there. */
  #refuse(where: string): never {
    const character = this.#text[this.#offset]
    const message =
      character === undefined ? 'unexpected end of JSON input' : `invalid character '${character}' ${where}`
    throw new ScanError(message, this.#offset)
  }
}

const backslash = 0x5c
const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39
