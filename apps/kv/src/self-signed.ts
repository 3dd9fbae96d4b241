import { X509Certificate } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { atomicWrite } from '@kiln/service'
import type { Settings, TlsFiles } from './settings/settings.ts'

const daysPerYear = 365

/**
 * Makes the certificates that `auto-tls` and `peer-auto-tls` ask for, below the data directory as etcd does, and keeps those that
 * are there and still good. They encrypt and prove nothing: nobody can check who made them.
 */
export async function withOwnCertificates(settings: Settings, now: Date): Promise<Settings> {
  const [clientTls, peerTls] = await Promise.all([
    ownCertificate(settings.clientTls, join(settings.dataDir, 'fixtures/client'), now),
    ownCertificate(settings.peerTls, join(settings.dataDir, 'fixtures/peer'), now),
  ])
  return { ...settings, clientTls, peerTls }
}

async function ownCertificate(
  files: TlsFiles | undefined,
  folder: string,
  now: Date,
): Promise<TlsFiles | undefined> {
  if (!files?.selfSigned) return files
  const certFile = join(folder, 'cert.pem')
  const keyFile = join(folder, 'key.pem')
  if (!isGood(certFile, keyFile, now)) {
    // The X.509 library is large and seldom needed.
    const { createCa, issueCertificate } = await import('@kiln/pki')
    const days = files.selfSigned.years * daysPerYear
    const ca = await createCa({ name: 'etcd', days, now })
    const { certificate, key } = await issueCertificate(ca, {
      commonName: 'etcd',
      names: files.selfSigned.hosts,
      use: ['server', 'client'],
      days,
      now,
    })
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await atomicWrite(keyFile, key, { mode: 0o600 })
    await atomicWrite(certFile, certificate + ca.certificate, { mode: 0o600 })
  }
  return { ...files, certFile, keyFile }
}

function isGood(certFile: string, keyFile: string, now: Date): boolean {
  if (!existsSync(certFile) || !existsSync(keyFile)) return false
  return new X509Certificate(readFileSync(certFile)).validToDate > now
}
