import * as z from 'zod'

/**
 * A MAC address in any common form (colons, dashes, dots, bare hex) as lower-case with colons;
 * undefined when it is none.
 */
export function normaliseMac(text: string): string | undefined {
  const hex = text.trim().toLowerCase().replaceAll(/[:.-]/g, '')
  if (!/^[0-9a-f]{12}$/.test(hex)) return undefined
  return (hex.match(/../g) ?? []).join(':')
}

/** A MAC address as lower-case with colons, whatever form was given. */
export const Mac = z.string().transform((text, context) => {
  const mac = normaliseMac(text)
  if (mac === undefined) {
    context.addIssue({ code: 'custom', message: `not a MAC address: ${text.slice(0, 40)}` })
    return z.NEVER
  }
  return mac
})

/** A host name of one label (RFC 1123): what names and ids of machines are made of. */
export const HostName = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'must be a lower-case host name of one label')

/** Name of a group, a profile, a channel: one path segment. */
export const SegmentName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/, 'must be one path segment')
