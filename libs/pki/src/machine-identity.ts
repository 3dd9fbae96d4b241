import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { atomicWrite, Fault } from '@kiln/service'

/** The identity of a machine as node:tls takes it: its certificate and key, and the CA it trusts. All PEM. */
export type MachineTls = { ca: string; cert: string; key: string }

const certificateFile = 'machine.pem'

/** Where a machine's certificate is, for whoever waits for its renewal. */
export const machineCertificate = (folder: string): string => join(folder, certificateFile)

/** Common name of the operator's certificate. */
export const operatorName = 'admin'

/**
 * Reads `ca.pem`, `machine.pem` and `machine.key`. Whoever opens a connection reads them then, so that a renewed
 * certificate is used without a restart.
 */
export function readMachineTls(folder: string): MachineTls {
  const read = (name: string): string => {
    const path = join(folder, name)
    try {
      return readFileSync(path, 'utf8')
    } catch (cause) {
      throw new Fault('PKI_UNREADABLE', `cannot read ${path} of this machine's identity`, {
        cause,
        remedy: 'it is written when the machine enrols: allow a reinstall (kiln machine reprovision)',
      })
    }
  }
  return { ca: read('ca.pem'), cert: read(certificateFile), key: read('machine.key') }
}

/** How long a certificate holds, in milliseconds since 1970; it is renewed when two thirds of its life are over. */
export type CertificateLife = { fromMs: number; untilMs: number; renewFromMs: number }

export function certificateLife(certificatePem: string): CertificateLife {
  const { validFromDate, validToDate } = open(certificatePem)
  const [fromMs, untilMs] = [validFromDate.getTime(), validToDate.getTime()]
  return { fromMs, untilMs, renewFromMs: fromMs + ((untilMs - fromMs) * 2) / 3 }
}

/**
 * Takes a renewed certificate into use. The key stays, so certificate and key belong together whatever moment the power
 * goes: there is one file to change, and it is the old one or the new one. Refuses what would leave the machine worse off:
 * another key or name, another authority than the one it trusts, or an earlier end.
 */
export async function replaceMachineCertificate(folder: string, certificatePem: string): Promise<void> {
  const present = readMachineTls(folder)
  const [before, after] = [open(present.cert), open(certificatePem)]
  const problem = !after.checkPrivateKey(createPrivateKey(present.key))
    ? "is not for this machine's key"
    : !after.verify(open(present.ca).publicKey)
      ? 'was not signed by the authority this machine trusts'
      : after.subject !== before.subject
        ? `is for ${after.subject}, not for ${before.subject}`
        : after.validToDate <= before.validToDate
          ? `ends at ${after.validTo}, no later than the present one`
          : undefined
  if (problem) throw new Fault('CERTIFICATE_UNFIT', `the renewed certificate ${problem}`)
  await atomicWrite(join(folder, certificateFile), certificatePem, { mode: 0o644 })
}

function open(pem: string): X509Certificate {
  try {
    return new X509Certificate(pem)
  } catch (cause) {
    throw new Fault('CERTIFICATE_UNFIT', 'the certificate cannot be read', { cause })
  }
}
