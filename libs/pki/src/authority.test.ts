import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdtempSync, statSync, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { caHash, createCa, csrKeyHash, issueCertificate, signCsr } from './authority.ts'
import { createCsr, createMachineKey } from './csr.ts'
import { identityOf, readIdentity, writeIdentity } from './identity-files.ts'

const now = new Date('2026-06-01T00:00:00Z')
const subject = {
  commonName: 'node1',
  names: ['node1', '10.77.0.11'],
  use: ['server', 'client'],
  days: 365,
  now,
} as const
const ca = await createCa({ name: 'Kiln cluster CA', days: 3650, now })

test('a request made in plain DER is signed with the names of the record, not its own', async () => {
  const key = createMachineKey()
  const pem = await signCsr(ca, createCsr(key, 'admin'), subject)
  const certificate = new X509Certificate(pem)
  expect(certificate.subject).toBe('CN=node1')
  expect(certificate.subjectAltName).toBe('DNS:node1, IP Address:10.77.0.11')
  expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'])
  expect(certificate.ca).toBe(false)
  expect(certificate.verify(new X509Certificate(ca.certificate).publicKey)).toBe(true)
  expect(certificate.checkPrivateKey(createPrivateKey(key))).toBe(true)
  expect(certificate.validFromDate).toEqual(new Date('2026-05-31T23:00:00Z'))
})

test('a request whose signature does not fit its key is refused', async () => {
  const csr = createCsr(createMachineKey(), 'node1')
  const bytes = Buffer.from(csr.replaceAll(/-----.*-----/g, ''), 'base64')
  bytes[bytes.length - 6] = (bytes[bytes.length - 6] ?? 0) ^ 1
  const forged = `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
  await expect(csrKeyHash(forged)).rejects.toMatchObject({ code: 'CSR_INVALID' })
  await expect(signCsr(ca, 'nonsense', subject)).rejects.toMatchObject({ code: 'CSR_INVALID' })
})

test('a request for another kind of key is refused', async () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'secp384r1' })
  const csr = createCsr(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, 'node1')
  await expect(csrKeyHash(csr)).rejects.toMatchObject({ code: 'CSR_INVALID' })
})

test('the key hash is the same for every request of one key', async () => {
  const key = createMachineKey()
  expect(await csrKeyHash(createCsr(key, 'a'))).toBe(await csrKeyHash(createCsr(key, 'b')))
  expect(await csrKeyHash(createCsr(key, 'a'))).not.toBe(await csrKeyHash(createCsr(createMachineKey(), 'a')))
})

test('a long common name needs long lengths in DER and still reads', async () => {
  expect(await csrKeyHash(createCsr(createMachineKey(), 'n'.repeat(300)))).toMatch(/^[0-9a-f]{64}$/)
})

test('an operator gets a client certificate without names', async () => {
  const admin = await issueCertificate(ca, { ...subject, commonName: 'admin', names: [], use: ['client'] })
  const certificate = new X509Certificate(admin.certificate)
  expect(certificate.subjectAltName).toBeUndefined()
  expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2'])
})

test('the hash of a CA is its DER fingerprint', () => {
  const fingerprint = new X509Certificate(ca.certificate).fingerprint256.replaceAll(':', '').toLowerCase()
  expect(caHash(ca.certificate)).toBe(fingerprint)
})

test('an identity is made once, its key readable by the owner only', async () => {
  const folder = join(mkdtempSync(join(tmpdir(), 'kiln-pki-')), 'pki')
  const first = await identityOf(folder, 'ca', async () => ca)
  const second = await identityOf(folder, 'ca', () => expect.unreachable())
  expect(second).toEqual(first)
  expect(statSync(join(folder, 'ca.key')).mode & 0o777).toBe(0o600)
})

test('a crash between key and certificate leads to a new pair, a lost key to a clear fault', async () => {
  const folder = join(mkdtempSync(join(tmpdir(), 'kiln-pki-')), 'pki')
  await writeIdentity(folder, 'ca', ca)
  unlinkSync(join(folder, 'ca.pem'))
  expect(await readIdentity(folder, 'ca')).toBeUndefined()
  await writeIdentity(folder, 'ca', ca)
  unlinkSync(join(folder, 'ca.key'))
  await expect(readIdentity(folder, 'ca')).rejects.toMatchObject({ code: 'PKI_KEY_MISSING' })
})
