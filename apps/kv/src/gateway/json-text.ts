import type { JsonValue } from '@kiln/etcd-api/descriptors'

/**
 * Parses JSON without rounding: an integer that a number cannot hold becomes its digits as text, which is the other form that
 * 64-bit fields have.
 */
export function parseJson(text: string): JsonValue {
  const keepDigits = (_key: string, value: unknown, context?: { source?: string }): unknown =>
    typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)
      ? context?.source
      : value
  return JSON.parse(text, keepDigits) as JsonValue
}

/** Cuts a stream of JSON objects, with or without space between them, into one text each. */
export class JsonObjects {
  #text = ''
  /** How far `#text` was looked at. */
  #at = 0
  #start = -1
  #depth = 0
  #isQuoted = false
  readonly #charsMax: number

  constructor(charsMax: number) {
    this.#charsMax = charsMax
  }

  /** The objects that are complete now. Throws `SyntaxError` for anything else and `RangeError` for one that is too long. */
  push(chunk: string): string[] {
    this.#text += chunk
    const found: string[] = []
    for (; this.#at < this.#text.length; this.#at++) this.#look(this.#text[this.#at]!, found)
    const cut = this.#start < 0 ? this.#text.length : this.#start
    this.#text = this.#text.slice(cut)
    this.#at -= cut
    if (this.#start >= 0) this.#start = 0
    if (this.#text.length > this.#charsMax) throw new RangeError('message is too long')
    return found
  }

  /** True while an object is begun and not complete. */
  get isPartial(): boolean {
    return this.#start >= 0
  }

  #look(char: string, found: string[]): void {
    if (this.#isQuoted) {
      if (char === '\\') this.#at++
      else if (char === '"') this.#isQuoted = false
      return
    }
    if (this.#depth === 0) {
      if (/\s/.test(char)) return
      if (char !== '{') throw new SyntaxError(`invalid character '${char}' looking for beginning of value`)
      this.#start = this.#at
    }
    if (char === '"') this.#isQuoted = true
    else if (char === '{' || char === '[') this.#depth++
    else if ((char === '}' || char === ']') && --this.#depth === 0) {
      found.push(this.#text.slice(this.#start, this.#at + 1))
      this.#start = -1
    }
  }
}
