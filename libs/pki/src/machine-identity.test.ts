import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createCa, signCsr } from './authority.ts'
import { createCsr, createMachineKey } from './csr.ts'
import { certificateLife, readMachineTls, replaceMachineCertificate } from './machine-identity.ts'

const now = new Date('2026-06-01T00:00:00Z')
const dayMs = 86_400_000
const ca = await createCa({ name: 'Kiln cluster CA', days: 3650, now })
const stranger = await createCa({ name: 'Kiln cluster CA', days: 3650, now })

type Wanted = { by?: typeof ca; key?: string; name?: string; days?: number }

/** A machine's folder as it is after enrolment, and certificates for it. */
async function enrolled() {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-identity-'))
  const key = createMachineKey()
  const certify = ({ by = ca, key: of = key, name = 'node1', days = 60 }: Wanted): Promise<string> =>
    signCsr(by, createCsr(of, name), { commonName: name, names: [], use: ['client'], days, now })
  writeFileSync(join(folder, 'ca.pem'), ca.certificate)
  writeFileSync(join(folder, 'machine.key'), key, { mode: 0o600 })
  writeFileSync(join(folder, 'machine.pem'), await certify({ days: 30 }))
  return { folder, certify }
}

test('a certificate is to be renewed when two thirds of its life are over', async () => {
  const { folder } = await enrolled()
  const life = certificateLife(readMachineTls(folder).cert)
  expect(life.untilMs).toBe(now.getTime() + 30 * dayMs)
  expect(life.renewFromMs).toBe(life.fromMs + ((life.untilMs - life.fromMs) * 2) / 3)
})

test('a renewed certificate replaces the file whole and leaves the key alone', async () => {
  const { folder, certify } = await enrolled()
  const before = [readMachineTls(folder).key, statSync(join(folder, 'machine.key')).ino]
  const renewed = await certify({})
  await replaceMachineCertificate(folder, renewed)
  expect(readMachineTls(folder).cert).toBe(renewed)
  expect([readMachineTls(folder).key, statSync(join(folder, 'machine.key')).ino]).toEqual(before)
  expect(readdirSync(folder).sort()).toEqual(['ca.pem', 'machine.key', 'machine.pem'])
})

test('whoever reads during a renewal gets a certificate that belongs to the key', async () => {
  const { folder, certify } = await enrolled()
  let renewing = true
  const renewals = (async () => {
    for (let days = 60; days < 70; days++) await replaceMachineCertificate(folder, await certify({ days }))
    renewing = false
  })()
  const seen = new Set<string>()
  while (renewing) {
    const { cert, key } = readMachineTls(folder)
    expect(new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))).toBe(true)
    seen.add(cert)
    await new Promise((resolve) => setImmediate(resolve))
  }
  await renewals
  expect(seen.size).toBeGreaterThan(2)
})

test('a certificate that would leave the machine worse off is refused and changes nothing', async () => {
  const { folder, certify } = await enrolled()
  const before = readFileSync(join(folder, 'machine.pem'), 'utf8')
  const unfit: [Promise<string> | string, RegExp][] = [
    [certify({ key: createMachineKey() }), /not for this machine's key/],
    [certify({ by: stranger }), /not signed by the authority/],
    [certify({ name: 'node2' }), /is for CN=node2/],
    [certify({ days: 30 }), /no later than the present one/],
    ['nonsense', /cannot be read/],
  ]
  for (const [certificate, message] of unfit) {
    const refused = replaceMachineCertificate(folder, await certificate)
    await expect(refused).rejects.toMatchObject({
      code: 'CERTIFICATE_UNFIT',
      message: expect.stringMatching(message),
    })
  }
  expect(readFileSync(join(folder, 'machine.pem'), 'utf8')).toBe(before)
})

test('a machine without an identity says which file is missing and what to do', async () => {
  const { folder } = await enrolled()
  rmSync(join(folder, 'machine.key'))
  expect(() => readMachineTls(folder)).toThrow(
    expect.objectContaining({ code: 'PKI_UNREADABLE', message: expect.stringContaining('machine.key') }),
  )
})
