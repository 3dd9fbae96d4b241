import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createCa, issueCertificate } from '@kiln/pki'
import { MachineFacts } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { confirmDowngrade } from './boot-server.ts'

const now = new Date()
const ca = await createCa({ name: 'Kiln cluster CA', days: 10, now })
const other = await createCa({ name: 'Somebody', days: 10, now })
const machine = await issueCertificate(ca, { commonName: 'node1', names: [], use: ['client'], days: 5, now })
const pki = { ca: ca.certificate, cert: machine.certificate, key: machine.key }

/** A boot server with a certificate of the given authority that answers with this channel. */
async function ask(authority: typeof ca, channel: object): Promise<boolean> {
  const subject = { commonName: 'boot', names: ['127.0.0.1'], use: ['server'], days: 5, now } as const
  const { certificate, key } = await issueCertificate(authority, subject)
  const server = createServer({ key, cert: certificate }, (_request, response) =>
    response.end(JSON.stringify(channel)),
  ).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const facts = MachineFacts.parse({
    formatVersion: 1,
    id: 'node1',
    name: 'node1',
    group: 'default',
    role: 'store',
    address: '10.77.0.11',
    bootUrl: 'http://127.0.0.1:1',
    bootTlsUrl: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    storeEndpoints: [],
  })
  try {
    return await confirmDowngrade(facts, pki, '0.1.0')
  } finally {
    server.close()
  }
}

const asked = { version: '0.1.0', manifestUrl: 'x', state: 'rolling', allowDowngrade: true }

test('a downgrade counts only when the boot server of our own authority asks for that very release', async () => {
  expect(await ask(ca, asked)).toBe(true)
  expect(await ask(ca, { ...asked, allowDowngrade: undefined })).toBe(false)
  expect(await ask(ca, { ...asked, version: '0.0.9' })).toBe(false)
  await expect(ask(other, asked)).rejects.toMatchObject({ code: 'BOOT_SERVER_UNREACHABLE' })
})
