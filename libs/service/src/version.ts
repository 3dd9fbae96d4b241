declare const KILN_VERSION: string | undefined

/** The release this program was built as; bundles have it written in. */
export const version: string = typeof KILN_VERSION === 'string' ? KILN_VERSION : '0.1.0'
