import { randomInt } from 'node:crypto'

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const prefixLength = 16
/** Tokens at once; beyond it the one that would end first goes. */
const tokensMaxDefault = 100_000
/** Use is not noted more often, to spare the busy ones. */
const renewalMs = 1000

/** The part of a token that cannot be guessed; the rest is the place of its entry in the log. */
export const drawPrefix = (): string =>
  Array.from({ length: prefixLength }, () => letters[randomInt(letters.length)]).join('')

/** The log index in a token, undefined if it is no simple token. */
export function indexIn(token: string): number | undefined {
  const match = /^[A-Za-z]{16}\.(\d{1,15})$/.exec(token)
  return match ? Number(match[1]) : undefined
}

/** etcd's simple tokens: known by heart, on each member that applied their entry, until unused for their time to live. */
export class SimpleTokens {
  readonly #ttlMs: number
  readonly #now: () => number
  readonly #tokensMax: number
  /** The one that ends first is first. */
  readonly #tokens = new Map<string, { name: string; endsAt: number }>()

  constructor(options: { ttlMs: number; now: () => number; tokensMax?: number }) {
    this.#ttlMs = options.ttlMs
    this.#now = options.now
    this.#tokensMax = options.tokensMax ?? tokensMaxDefault
  }

  get size(): number {
    return this.#tokens.size
  }

  give(name: string, token: string): void {
    const now = this.#now()
    for (const [old, { endsAt }] of this.#tokens) {
      if (endsAt > now && this.#tokens.size < this.#tokensMax) break
      this.#tokens.delete(old)
    }
    this.#tokens.set(token, { name, endsAt: now + this.#ttlMs })
  }

  /** Whose token it is; to ask is to use it. */
  nameOf(token: string): string | undefined {
    const found = this.#tokens.get(token)
    if (!found) return undefined
    const now = this.#now()
    if (found.endsAt <= now) {
      this.#tokens.delete(token)
      return undefined
    }
    const endsAt = now + this.#ttlMs
    if (endsAt - found.endsAt >= Math.min(renewalMs, this.#ttlMs / 10)) {
      this.#tokens.delete(token)
      this.#tokens.set(token, { name: found.name, endsAt })
    }
    return found.name
  }

  forgetUser(name: string): void {
    for (const [token, found] of this.#tokens) if (found.name === name) this.#tokens.delete(token)
  }

  clear(): void {
    this.#tokens.clear()
  }
}
