/**
 * Where the parts of a config stand in the module that makes it. Only literals are read: objects, lists, and names of
 * constants that are one. What the code computes has the place of the nearest part that is written down.
 */
export type Literal = {
  offset: number
  /** Of an object: each key's own place and its value's. */
  fields?: Map<string, { offset: number; value: Literal }>
  /** Of a list, as far as they are in their places: not behind a spread. */
  items?: Literal[]
}

const depthMax = 60
const namesMax = 20
const expressionsMax = 50_000

/** The default export of a module, as far as it is written down. */
export function findDefaultExport(text: string): Literal | undefined {
  const match = /^export\s+default\s+/m.exec(text)
  if (!match) return undefined
  const reader = new LiteralReader(text)
  return reader.expression(match.index + match[0].length, 0, 0)
}

const identifier = /[A-Za-z_$][\w$]*/y
const arrow = /(?:async\s*)?(?:\([^()]*\)|[A-Za-z_$][\w$]*)\s*(?::[^=;]*)?=>\s*/y
const closing: Record<string, string> = { '{': '}', '[': ']', '(': ')' }

const partsOf = ({ fields, items }: Literal): Omit<Literal, 'offset'> => ({
  ...(fields ? { fields } : {}),
  ...(items ? { items } : {}),
})

class LiteralReader {
  readonly #text: string
  #at = 0
  /** Constants that are used again are read again, but not without end. */
  #budget = expressionsMax

  constructor(text: string) {
    this.#text = text
  }

  /** Reads one expression and stands behind it, before the comma or bracket that ends it. */
  expression(offset: number, depth: number, names: number): Literal {
    this.#at = offset
    this.#space()
    const literal: Literal = { offset: this.#at }
    if (depth < depthMax && --this.#budget > 0) Object.assign(literal, this.#parts(depth, names))
    this.#skip()
    return literal
  }

  #parts(depth: number, names: number): Omit<Literal, 'offset'> {
    // A function is what it gives, an expression in brackets what is in them.
    arrow.lastIndex = this.#at
    this.#at += arrow.exec(this.#text)?.[0].length ?? 0
    const character = this.#text[this.#at]
    if (character === '(') {
      const here = this.#at
      const inner = this.expression(here + 1, depth + 1, names)
      this.#at = here
      return partsOf(inner)
    }
    if (character === '{') return { fields: this.#fields(depth, names) }
    if (character === '[') return { items: this.#items(depth, names) }
    identifier.lastIndex = this.#at
    const name = identifier.exec(this.#text)?.[0]
    if (name === undefined || names >= namesMax) return {}
    const behind = this.#at + name.length
    if (this.#text[behind] === '(') {
      // A function that hands its argument on, such as one that only checks its type; else what the function gives.
      const here = this.#at
      const inner = this.expression(behind + 1, depth + 1, names)
      this.#at = here
      if (inner.fields || inner.items) return partsOf(inner)
    }
    const declared = new RegExp(`\\bconst\\s+${name.replaceAll('$', '\\$')}\\b[^=;]*=\\s*`).exec(this.#text)
    if (!declared) return {}
    const here = this.#at
    const value = this.expression(declared.index + declared[0].length, depth + 1, names + 1)
    this.#at = here
    return partsOf(value)
  }

  #fields(depth: number, names: number): NonNullable<Literal['fields']> {
    const fields: NonNullable<Literal['fields']> = new Map()
    this.#at++
    while (this.#more('}')) {
      const offset = this.#at
      const key = this.#key()
      this.#space()
      if (key !== undefined && this.#text[this.#at] === ':') {
        fields.set(key, { offset, value: this.expression(this.#at + 1, depth + 1, names) })
      } else if (key !== undefined && /[,}]/.test(this.#text[this.#at] ?? '')) {
        fields.set(key, { offset, value: this.expression(offset, depth + 1, names) })
      } else this.#skip()
    }
    return fields
  }

  #items(depth: number, names: number): Literal[] {
    const items: Literal[] = []
    let inPlace = true
    this.#at++
    while (this.#more(']')) {
      if (this.#text.startsWith('...', this.#at)) inPlace = false
      const item = this.expression(this.#at, depth + 1, names)
      if (inPlace) items.push(item)
    }
    return items
  }

  /** Whether another entry follows; steps over the comma before it, or the bracket that ends the list. */
  #more(end: string): boolean {
    this.#space()
    if (this.#text[this.#at] === ',') this.#at++
    this.#space()
    const character = this.#text[this.#at]
    if (character === undefined) return false
    if (character !== end && !')]}'.includes(character)) return true
    this.#at++
    return false
  }

  #key(): string | undefined {
    const start = this.#at
    const character = this.#text[start] ?? ''
    if (character === "'" || character === '"') {
      this.#string(character)
      return this.#text.slice(start + 1, this.#at - 1)
    }
    identifier.lastIndex = start
    const name = identifier.exec(this.#text)?.[0]
    if (name !== undefined) this.#at += name.length
    return name
  }

  /** Over the rest of an expression, with all that is nested in it. */
  #skip(): void {
    const open: string[] = []
    while (this.#at < this.#text.length) {
      this.#space()
      const character = this.#text[this.#at] ?? ''
      if (open.length === 0 && (character === ',' || ')]}'.includes(character))) return
      if (character === open.at(-1)) open.pop()
      else if (closing[character]) open.push(closing[character])
      if (character === "'" || character === '"' || character === '`') this.#string(character)
      else this.#at++
    }
  }

  #string(quote: string): void {
    this.#at++
    while (this.#at < this.#text.length && this.#text[this.#at] !== quote) {
      this.#at += this.#text[this.#at] === '\\' ? 2 : 1
    }
    this.#at++
  }

  #space(): void {
    const blank = /(?:\s|\/\/[^\n]*|\/\*[\s\S]*?\*\/)*/y
    blank.lastIndex = this.#at
    this.#at += blank.exec(this.#text)?.[0].length ?? 0
  }
}
