export {
  type CertificateSubject,
  type CertificateUse,
  caHash,
  createCa,
  csrKeyHash,
  issueCertificate,
  issueCrl,
  type KeyPair,
  signCsr,
} from './authority.ts'
export { createCsr, createMachineKey } from './csr.ts'
export { identityOf, readIdentity, writeIdentity } from './identity-files.ts'
export {
  createReleaseKey,
  type ReleaseKey,
  releasePublicKey,
  signManifest,
  verifyManifest,
} from './release.ts'
