/** Where a value of a JSON text starts; both count from 1, columns in bytes. */
export type Position = { line: number; column: number }

/** A JSON text that does not parse. */
export type JsonFault = { message: string; at: Position }

/** A JSON text's value, with the place of every value and of every key. */
export type ParsedJson = {
  ok: true
  value: unknown
  positions: Map<string, Position>
  keyPositions: Map<string, Position>
  /** Paths of the numbers that are written with a fraction or an exponent, which are no integers to Ignition. */
  fractions: string[]
}

/** Nesting deeper than this is refused, so that no document can exhaust the stack. */
const depthMax = 200

/**
 * Parses JSON (RFC 8259) and remembers where every value starts, keyed by its path as JSON pointer segments joined
 * with `.` (`storage.files.0.path`, '' for the whole). Objects and arrays are placed after their bracket, as
 * Ignition's reports have it.
 */
export function parseJsonWithPositions(text: string): ParsedJson | { ok: false; fault: JsonFault } {
  const scanner = new Scanner(text)
  try {
    const value = scanner.document()
    return {
      ok: true,
      value,
      positions: scanner.positions,
      keyPositions: scanner.keyPositions,
      fractions: scanner.fractions,
    }
  } catch (error) {
    if (error instanceof ScanError) {
      return { ok: false, fault: { message: error.message, at: scanner.positionOf(error.offset) } }
    }
    throw error
  }
}

/** Position of a path, or of its nearest ancestor that the text has. */
export function positionOfPath(
  positions: Map<string, Position>,
  path: readonly (string | number)[],
): Position | undefined {
  for (let length = path.length; length >= 0; length--) {
    const found = positions.get(path.slice(0, length).join('.'))
    if (found) return found
  }
  return undefined
}

class ScanError extends Error {
  readonly offset: number

  constructor(message: string, offset: number) {
    super(message)
    this.offset = offset
  }
}

const numberPattern = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const literals: [string, unknown][] = [
  ['true', true],
  ['false', false],
  ['null', null],
]

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

/** One pass over one text. */
class Scanner {
  readonly positions = new Map<string, Position>()
  readonly keyPositions = new Map<string, Position>()
  readonly fractions: string[] = []
  readonly #text: string
  readonly #lineStarts: number[] = [0]
  /** Bytes of UTF-8 before each character, as columns count bytes; absent when all are ASCII. */
  readonly #bytesBefore: Uint32Array | undefined
  #offset = 0

  constructor(text: string) {
    this.#text = text
    this.#bytesBefore = Buffer.byteLength(text) === text.length ? undefined : bytesBefore(text)
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) this.#lineStarts.push(at + 1)
  }

  document(): unknown {
    this.#space()
    const value = this.#value('', 0)
    this.#space()
    if (this.#offset < this.#text.length) {
      this.#fail(`invalid character ${this.#here()} after top-level value`)
    }
    return value
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

  #value(path: string, depth: number): unknown {
    if (depth > depthMax) this.#fail(`nesting is deeper than ${depthMax}`)
    const start = this.#offset
    const first = this.#text[start]
    if (first === '{' || first === '[') {
      this.positions.set(path, this.positionOf(start + 1))
      this.#offset++
      return first === '{' ? this.#object(path, depth) : this.#array(path, depth)
    }
    this.positions.set(path, this.positionOf(start))
    if (first === '"') return this.#string()
    for (const [word, value] of literals) {
      if (this.#text.startsWith(word, start)) {
        this.#offset += word.length
        return value
      }
    }
    numberPattern.lastIndex = start
    const number = numberPattern.exec(this.#text)
    if (!number) this.#fail(`invalid character ${this.#here()} looking for beginning of value`)
    this.#offset += number![0].length
    if (/[.eE]/.test(number![0])) this.fractions.push(path)
    return Number(number![0])
  }

  #object(path: string, depth: number): Record<string, unknown> {
    const object: Record<string, unknown> = {}
    this.#space()
    if (this.#text[this.#offset] === '}') {
      this.#offset++
      return object
    }
    while (true) {
      this.#space()
      if (this.#text[this.#offset] !== '"') {
        this.#fail(`invalid character ${this.#here()} looking for beginning of object key string`)
      }
      const keyAt = this.#offset
      const key = this.#string()
      const keyPath = path === '' ? key : `${path}.${key}`
      this.keyPositions.set(keyPath, this.positionOf(keyAt))
      this.#space()
      this.#expect(':', 'after object key')
      this.#space()
      const value = this.#value(keyPath, depth + 1)
      Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true })
      this.#space()
      if (this.#text[this.#offset] === '}') {
        this.#offset++
        return object
      }
      this.#expect(',', 'after object key:value pair')
    }
  }

  #array(path: string, depth: number): unknown[] {
    const array: unknown[] = []
    this.#space()
    if (this.#text[this.#offset] === ']') {
      this.#offset++
      return array
    }
    while (true) {
      this.#space()
      array.push(this.#value(path === '' ? `${array.length}` : `${path}.${array.length}`, depth + 1))
      this.#space()
      if (this.#text[this.#offset] === ']') {
        this.#offset++
        return array
      }
      this.#expect(',', 'after array element')
    }
  }

  #string(): string {
    const start = this.#offset
    let at = start + 1
    while (at < this.#text.length && this.#text[at] !== '"') {
      if (this.#text.charCodeAt(at) < 0x20) {
        this.#offset = at
        this.#fail(`invalid character ${this.#here()} in string literal`)
      }
      at += this.#text[at] === '\\' ? 2 : 1
    }
    if (at >= this.#text.length) {
      this.#offset = this.#text.length
      this.#fail('unexpected end of JSON input')
    }
    this.#offset = at + 1
    try {
      return JSON.parse(this.#text.slice(start, at + 1)) as string
    } catch {
      throw new ScanError('invalid escape in string literal', start)
    }
  }

  #space(): void {
    while (' \t\n\r'.includes(this.#text[this.#offset] ?? 'x')) this.#offset++
  }

  #expect(character: string, where: string): void {
    if (this.#text[this.#offset] !== character) this.#fail(`invalid character ${this.#here()} ${where}`)
    this.#offset++
  }

  #here(): string {
    const character = this.#text[this.#offset]
    if (character === undefined) this.#fail('unexpected end of JSON input')
    return `'${character}'`
  }

  #fail(message: string): never {
    throw new ScanError(message, this.#offset)
  }
}
