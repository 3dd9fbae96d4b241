import { checkServerIdentity, type PeerCertificate } from 'node:tls'

export type AllowedNames = { allowedCommonNames: readonly string[]; allowedHostnames: readonly string[] }

/** Whether a certificate that verified has a name that may come in; without lists all may (kv.md section 10). */
export function isNameAllowed(certificate: PeerCertificate, allowed: AllowedNames): boolean {
  const { allowedCommonNames, allowedHostnames } = allowed
  if (allowedCommonNames.length === 0 && allowedHostnames.length === 0) return true
  const names = [certificate.subject?.CN ?? []].flat()
  if (names.some((name) => allowedCommonNames.includes(name))) return true
  if (!certificate.subject) return false
  return allowedHostnames.some((host) => checkServerIdentity(host, certificate) === undefined)
}
