/**
 * A fault of the outside world: a stable code that callers match on, a sentence that says what was being done
 * to what, and the cause beside it. Codes are listed in `docs/reference/errors.md`.
 */
export class Fault extends Error {
  readonly code: string
  /** What the operator can do about it, if we know. */
  readonly remedy: string | undefined

  constructor(code: string, message: string, options: { cause?: unknown; remedy?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'Fault'
    this.code = code
    this.remedy = options.remedy
  }
}

/** One line for a person: code, sentence, the chain of causes and the remedy. */
export function describeError(error: unknown): string {
  const parts: string[] = []
  let remedy: string | undefined
  for (let at: unknown = error, depth = 0; at !== undefined && depth < 5; depth++) {
    if (!(at instanceof Error)) {
      parts.push(String(at))
      break
    }
    parts.push(at instanceof Fault ? `${at.code}: ${at.message}` : at.message)
    if (at instanceof Fault) remedy ??= at.remedy
    at = at.cause
  }
  return parts.join(': ') + (remedy ? ` (${remedy})` : '')
}
