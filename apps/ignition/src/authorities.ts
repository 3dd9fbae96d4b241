import { X509Certificate } from 'node:crypto'
import { Fault } from '@kiln/service'

const blockPattern = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----/g

/** The certificates of a bundle (PEM); one that cannot be read makes the whole bundle worthless. */
export function certificatesOf(bundle: string, source: string): string[] {
  const certificates = [...bundle.matchAll(blockPattern)].map(([block]) => block)
  for (const [index, block] of certificates.entries()) {
    try {
      new X509Certificate(block)
    } catch (cause) {
      throw new Fault(
        'AUTHORITY_INVALID',
        `block ${index + 1} of the certificate authorities from ${source} is no certificate`,
        { cause, remedy: 'correct the bundle' },
      )
    }
  }
  if (certificates.length === 0) {
    throw new Fault('AUTHORITY_INVALID', `there is no certificate authority in ${source}`)
  }
  return certificates
}
