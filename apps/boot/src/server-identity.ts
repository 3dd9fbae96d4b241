import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { createCa, identityOf, issueCertificate, type KeyPair, readIdentity, writeIdentity } from '@kiln/pki'
import { operatorName } from '@kiln/pki/machine'

const caDays = 3650
const serverDays = 397
const adminDays = 3650

export type ServerIdentity = {
  ca: KeyPair
  /** True when there was no CA and one was made. */
  isNew: boolean
  admin: KeyPair
  /** Key, certificate and CA as node:tls wants them. */
  tlsOptions(): { key: string; cert: string; ca: string; minVersion: 'TLSv1.2' }
  /** Makes a new server certificate when two thirds of its life are over; true when it did. */
  renew(now: Date): Promise<boolean>
}

/**
 * CA, server and operator certificates in the `pki` folder. What is not there is made: a given CA (`ca.pem`, `ca.key`)
 * is used, and the server certificate is made again when its names or its CA changed.
 */
export async function openServerIdentity(folder: string, names: readonly string[]): Promise<ServerIdentity> {
  const now = new Date()
  let isNew = false
  const ca = await identityOf(folder, 'ca', () => {
    isNew = true
    return createCa({ name: 'Kiln cluster CA', days: caDays, now })
  })
  const admin = await identityOf(folder, 'admin', () =>
    issueCertificate(ca, { commonName: operatorName, names: [], use: ['client'], days: adminDays, now }),
  )
  let boot = await readIdentity(folder, 'boot')
  const make = async (at: Date): Promise<void> => {
    boot = await issueCertificate(ca, {
      commonName: 'boot',
      names,
      use: ['server'],
      days: serverDays,
      now: at,
    })
    await writeIdentity(folder, 'boot', boot)
  }
  const renew = async (at: Date): Promise<boolean> => {
    if (boot && stillGood(boot, { ca, names, now: at })) return false
    await make(at)
    return true
  }
  await renew(now)
  return {
    ca,
    isNew,
    admin,
    tlsOptions: () => ({
      key: boot?.key ?? '',
      cert: `${boot?.certificate ?? ''}${ca.certificate}`,
      ca: ca.certificate,
      minVersion: 'TLSv1.2',
    }),
    renew,
  }
}

function stillGood(pair: KeyPair, at: { ca: KeyPair; names: readonly string[]; now: Date }): boolean {
  const certificate = new X509Certificate(pair.certificate)
  const from = certificate.validFromDate.getTime()
  const life = certificate.validToDate.getTime() - from
  return (
    at.now.getTime() < from + (life * 2) / 3 &&
    certificate.verify(new X509Certificate(at.ca.certificate).publicKey) &&
    at.names.every(
      (name) => (isIP(name) ? certificate.checkIP(name) : certificate.checkHost(name)) !== undefined,
    )
  )
}
