import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createCa, issueCertificate } from '@kiln/pki'

/** Paths of a CA and of a certificate of it for both sides. */
export type TestCertificates = { ca: string; cert: string; key: string }

/** A CA and a certificate for loopback, as files in a folder. */
export async function writeTestCertificates(
  folder: string,
  { commonName = 'test', names = ['127.0.0.1', 'localhost'] } = {},
): Promise<TestCertificates> {
  const now = new Date()
  const authority = await createCa({ name: 'test', days: 1, now })
  const subject = { commonName, names, use: ['server', 'client'] as const, days: 1, now }
  const pair = await issueCertificate(authority, subject)
  const files = { ca: join(folder, 'ca.pem'), cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') }
  await writeFile(files.ca, authority.certificate)
  await writeFile(files.cert, pair.certificate)
  await writeFile(files.key, pair.key, { mode: 0o600 })
  return files
}
