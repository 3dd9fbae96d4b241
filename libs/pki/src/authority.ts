import { createHash, randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { Fault } from '@kiln/service'
import * as x509 from './x509.ts'

/** Certificate and private key (PKCS8), both PEM. */
export type KeyPair = { certificate: string; key: string }

/** What a certificate is for, TLS server, TLS client or both. */
export type CertificateUse = 'server' | 'client'

export type CertificateSubject = {
  commonName: string
  /** IP addresses and DNS names. */
  names: readonly string[]
  use: readonly CertificateUse[]
  days: number
  now: Date
}

const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const signingAlgorithm = { name: 'ECDSA', hash: 'SHA-256' } as const
const dayMs = 86_400_000
/** Certificates begin earlier than now, by how far clocks in a cluster may disagree. */
const clockSkewMs = 3_600_000
const usageOids = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' } as const

/** A new self-signed cluster CA on P-256. */
export async function createCa(at: { name: string; days: number; now: Date }): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: [{ CN: [at.name] }],
    ...validity(at),
    signingAlgorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificate: certificate.toString('pem') + '\n', key: await exportKey(keys.privateKey) }
}

/** A certificate with a key of its own, for our servers and for operators. */
export async function issueCertificate(ca: KeyPair, subject: CertificateSubject): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify'])
  const certificate = await certify(ca, keys.publicKey, subject)
  return { certificate, key: await exportKey(keys.privateKey) }
}

/**
 * Signs the key of a request. Names and validity come from `subject` only; the request proves possession of
 * the key and nothing else.
 */
export async function signCsr(ca: KeyPair, csrPem: string, subject: CertificateSubject): Promise<string> {
  const request = await openCsr(csrPem)
  return certify(ca, await request.publicKey.export(), subject)
}

/** A list of certificates (PEM) of a CA that are good no longer. */
export async function issueCrl(
  ca: KeyPair,
  list: { certificates: readonly string[]; days: number; now: Date },
): Promise<string> {
  const { notBefore, notAfter } = validity(list)
  const crl = await x509.X509CrlGenerator.create({
    issuer: new x509.X509Certificate(ca.certificate).subject,
    thisUpdate: notBefore,
    nextUpdate: notAfter,
    entries: list.certificates.map((pem) => ({
      serialNumber: new x509.X509Certificate(pem).serialNumber,
      revocationDate: list.now,
    })),
    signingAlgorithm,
    signingKey: await importKey(ca.key),
  })
  return x509.PemConverter.encode(crl.rawData, 'X509 CRL') + '\n'
}

/** sha256 (hex) of the public key a request is about; throws `CSR_INVALID` unless its own signature holds. */
export async function csrKeyHash(csrPem: string): Promise<string> {
  const request = await openCsr(csrPem)
  return createHash('sha256').update(new Uint8Array(request.publicKey.rawData)).digest('hex')
}

/** sha256 (hex) of a CA certificate's DER: what an enrolling machine pins. */
export function caHash(caPem: string): string {
  return createHash('sha256').update(new X509Certificate(caPem).raw).digest('hex')
}

async function openCsr(pem: string): Promise<x509.Pkcs10CertificateRequest> {
  let request: x509.Pkcs10CertificateRequest
  let holds = false
  try {
    request = new x509.Pkcs10CertificateRequest(pem)
    holds = await request.verify()
  } catch (cause) {
    throw new Fault('CSR_INVALID', 'the certificate request cannot be read', { cause })
  }
  if (!holds) throw new Fault('CSR_INVALID', 'the certificate request is not signed by its own key')
  const algorithm = request.publicKey.algorithm as { name: string; namedCurve?: string }
  if (algorithm.name !== 'ECDSA' || algorithm.namedCurve !== 'P-256') {
    throw new Fault('CSR_INVALID', `the certificate request has a ${algorithm.name} key, not P-256`)
  }
  return request
}

async function certify(
  ca: KeyPair,
  publicKey: webcrypto.CryptoKey,
  subject: CertificateSubject,
): Promise<string> {
  const issuer = new x509.X509Certificate(ca.certificate)
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: [{ CN: [subject.commonName] }],
    issuer: issuer.subject,
    ...validity(subject),
    signingAlgorithm,
    publicKey,
    signingKey: await importKey(ca.key),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(subject.use.map((use) => usageOids[use])),
      ...(subject.names.length > 0 ? [alternativeNames(subject.names)] : []),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
    ],
  })
  return certificate.toString('pem') + '\n'
}

function alternativeNames(names: readonly string[]): x509.SubjectAlternativeNameExtension {
  return new x509.SubjectAlternativeNameExtension(
    [...new Set(names)].map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value })),
  )
}

function validity(at: { days: number; now: Date }): { notBefore: Date; notAfter: Date } {
  return {
    notBefore: new Date(at.now.getTime() - clockSkewMs),
    notAfter: new Date(at.now.getTime() + at.days * dayMs),
  }
}

/** 127 random bits, positive and without a leading zero (RFC 5280 section 4.1.2.2). */
function serialNumber(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40
  return bytes.toString('hex')
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY') + '\n'
}

async function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  try {
    const [der] = x509.PemConverter.decode(pem)
    if (!der) throw new Error('no PEM block')
    return await webcrypto.subtle.importKey('pkcs8', der, keyAlgorithm, false, ['sign'])
  } catch (cause) {
    throw new Fault('PKI_KEY_INVALID', 'the CA key is not a P-256 key in PKCS8 PEM', { cause })
  }
}
