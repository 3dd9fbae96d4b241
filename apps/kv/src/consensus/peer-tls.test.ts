import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCa, issueCertificate, issueCrl } from '@kiln/pki'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPeerServer, dial, type PeerTls } from './peer-tls.ts'

let folder: string
/** TLS of members whose common names these are. */
const members = new Map<string, PeerTls>()
let crlFile: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kiln-kv-'))
  const now = new Date()
  const ca = await createCa({ name: 'test', days: 1, now })
  const file = async (name: string, text: string): Promise<string> => {
    await writeFile(join(folder, name), text)
    return join(folder, name)
  }
  const caFile = await file('ca.pem', ca.certificate)
  const certificates = new Map<string, string>()
  for (const commonName of ['good', 'revoked', 'stranger']) {
    const subject = { commonName, names: ['127.0.0.1', `${commonName}.example`], days: 1, now }
    const pair = await issueCertificate(ca, { ...subject, use: ['server', 'client'] })
    certificates.set(commonName, pair.certificate)
    members.set(commonName, {
      certFile: await file(`${commonName}.pem`, pair.certificate),
      keyFile: await file(`${commonName}.key`, pair.key),
      caFile,
      clientCertAuth: true,
    })
  }
  const list = { certificates: [certificates.get('revoked')!], days: 1, now }
  crlFile = await file('crl.pem', await issueCrl(ca, list))
})
afterAll(() => rm(folder, { recursive: true }))

/** Who of the members, each with `more`, gets an answer from a member with these rules. */
async function letIn(rules: Partial<PeerTls>, more: Partial<PeerTls> = {}): Promise<string[]> {
  const server = createPeerServer({ ...members.get('good')!, ...rules }, (socket) => {
    socket.on('error', () => undefined)
    socket.end('welcome')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const welcomed: string[] = []
  for (const [name, tls] of members) {
    const text = await new Promise<string>((resolve) => {
      let got = ''
      const socket = dial(url, { ...tls, ...more }, () => undefined)
      socket.on('data', (chunk) => {
        got += chunk.toString()
      })
      socket.on('error', () => resolve(got))
      socket.on('close', () => resolve(got))
    })
    if (text === 'welcome') welcomed.push(name)
  }
  await new Promise((resolve) => server.close(resolve))
  return welcomed
}

test('a peer comes in with a certificate of the CA that is not revoked and has an allowed name', async () => {
  expect(await letIn({})).toEqual(['good', 'revoked', 'stranger'])
  expect(await letIn({ crlFile })).toEqual(['good', 'stranger'])
  const byName = { allowedCommonNames: ['good', 'revoked'], allowedHostnames: [] }
  expect(await letIn({ allowed: byName })).toEqual(['good', 'revoked'])
  expect(await letIn({ crlFile, allowed: byName })).toEqual(['good'])
  const byHost = { allowedCommonNames: [], allowedHostnames: ['stranger.example'] }
  expect(await letIn({ allowed: byHost })).toEqual(['stranger'])
})

test('members show the certificate for outgoing connections, and agree on a version of TLS', async () => {
  const stranger = members.get('stranger')!
  const onlyStranger = { allowedCommonNames: ['stranger'], allowedHostnames: [] }
  expect(await letIn({ allowed: onlyStranger }, { outgoing: stranger })).toEqual([
    'good',
    'revoked',
    'stranger',
  ])
  const newest = { protocol: { minVersion: 'TLSv1.3' } } as const
  const older = { protocol: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } } as const
  expect(await letIn(newest, older)).toEqual([])
  expect(await letIn(newest, newest)).toEqual(['good', 'revoked', 'stranger'])
})
