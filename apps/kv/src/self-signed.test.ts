import { X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { expect, test } from 'vitest'
import { readTls } from './client-tls.ts'
import { withOwnCertificates } from './self-signed.ts'
import { loadSettings } from './settings/settings.ts'
import { startMembers } from './testing/member-process.ts'

test('a certificate is made once, for the hosts listened on, and again when it is over', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-kv-'))
  const { settings } = loadSettings({
    argv: [
      `--data-dir=${folder}/data`,
      '--auto-tls',
      '--self-signed-cert-validity=2',
      '--listen-client-urls=https://127.0.0.1:2379',
      '--advertise-client-urls=https://127.0.0.1:2379',
    ],
    env: {},
    readFile: () => '',
  })
  const now = new Date('2026-01-01T00:00:00Z')
  const { clientTls, peerTls } = await withOwnCertificates(settings, now)
  expect(peerTls).toBeUndefined()
  expect(clientTls!.certFile).toBe(join(folder, 'data/fixtures/client/cert.pem'))
  const certificate = new X509Certificate(await readFile(clientTls!.certFile))
  expect(certificate.checkIP('127.0.0.1')).toBe('127.0.0.1')
  expect(certificate.validToDate.toISOString()).toBe('2028-01-01T00:00:00.000Z')
  expect(readTls(clientTls!, undefined).clientCertificate).toBe('none')

  const serial = async (at: Date): Promise<string> => {
    const made = await withOwnCertificates(settings, at)
    return new X509Certificate(await readFile(made.clientTls!.certFile)).serialNumber
  }
  expect(await serial(now)).toBe(certificate.serialNumber)
  expect(await serial(new Date('2028-01-02T00:00:00Z'))).not.toBe(certificate.serialNumber)
  await rm(folder, { recursive: true })
})

test('members with certificates of their own making talk to each other', { timeout: 60_000 }, async () => {
  const cluster = await startMembers({ count: 2, flags: ['--auto-tls', '--peer-auto-tls'], scheme: 'https' })
  const { port } = new URL(cluster.endpoints[1]!)
  const issuer = await new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().issuer['O'] ?? socket.getPeerCertificate().issuer['CN'])
      socket.destroy()
    }).on('error', reject)
  })
  expect(issuer).toBe('etcd')
  await cluster.stop()
})
