import * as z from 'zod'

const binary: Record<string, number> = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40 }
const decimal: Record<string, number> = { '': 1, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12 }

/**
 * A Kubernetes quantity (`500m`, `64Mi`, `1e3`) as a number; undefined when it is none. Exponents from the
 * exabytes on are refused: a machine of that size has other problems.
 */
export function parseQuantity(text: string): number | undefined {
  const match = /^(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,2})|([A-Za-z]{0,2}))$/.exec(text)
  if (!match) return undefined
  const [, digits, exponent, suffix] = match
  const scale = exponent ? 1 : (binary[suffix ?? ''] ?? decimal[suffix ?? ''])
  if (scale === undefined) return undefined
  const value = Number(`${digits}${exponent ?? ''}`) * scale
  return Number.isFinite(value) ? Number(value.toPrecision(15)) : undefined
}

/** Quantity with a lower bound, as written; numbers are what YAML makes of `cpu: 1`. */
export const quantity = (min: number, what: string) =>
  z
    .union([z.string(), z.number()])
    .transform((value) => String(value))
    .refine((text) => (parseQuantity(text) ?? -1) >= min, `must be a quantity of at least ${what}`)
    .transform((text) => parseQuantity(text) ?? 0)
