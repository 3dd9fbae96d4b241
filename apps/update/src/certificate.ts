import { join } from 'node:path'
import { createCsr } from '@kiln/pki/csr'
import {
  type CertificateLife,
  certificateLife,
  readMachineTls,
  replaceMachineCertificate,
} from '@kiln/pki/machine'
import { atomicWrite, describeError, Fault, type Log } from '@kiln/service'

/** The longest time between two looks: a clock that was set, or a certificate put there by hand, is seen by then. */
const lookMs = 3_600_000
const retryFirstMs = 30_000
const retryMostMs = 3_600_000
/** Machines that were installed together do not renew together: they spread over this part of a certificate's life. */
const spreadPart = 1 / 20
const dayMs = 86_400_000

const expiredRemedy =
  "check this machine's clock; if it is right, start kiln-boot with --renew-expired-days N, and the machine renews " +
  'by itself within the hour, or allow a reinstall (kiln machine reprovision)'

export type RenewalPlan = { kind: 'wait'; ms: number } | { kind: 'renew' } | { kind: 'expired' }

/** What is due now; `place` is this machine's place in the spread, from 0 to 1. Pure. */
export function planRenewal(life: CertificateLife, at: { nowMs: number; place: number }): RenewalPlan {
  if (at.nowMs >= life.untilMs) return { kind: 'expired' }
  const dueMs = life.renewFromMs + at.place * spreadPart * (life.untilMs - life.fromMs)
  if (at.nowMs >= dueMs) return { kind: 'renew' }
  return { kind: 'wait', ms: Math.min(lookMs, Math.ceil(dueMs - at.nowMs)) }
}

/** How long to pause after so many failures in a row; `chance` from 0 to 1 keeps machines from asking in step. */
export function retryPauseMs(failures: number, chance: number): number {
  return Math.min(retryMostMs, retryFirstMs * 2 ** Math.min(20, failures - 1)) * (0.5 + chance / 2)
}

/** A certificate's life in words, for `kiln-update status`. */
export function describeLife(life: CertificateLife, nowMs: number): string {
  const day = (ms: number): string => new Date(ms).toISOString().slice(0, 16).replace('T', ' ')
  if (nowMs >= life.untilMs) return `EXPIRED at ${day(life.untilMs)} UTC: ${expiredRemedy}`
  if (nowMs < life.fromMs)
    return `not valid before ${day(life.fromMs)} UTC: the clock of this machine says ${day(nowMs)}`
  const days = (life.untilMs - nowMs) / dayMs
  const left = days >= 2 ? `${Math.floor(days)} days` : `${Math.floor(days * 24)} hours`
  return `valid until ${day(life.untilMs)} UTC, ${left} left, renewed from ${day(life.renewFromMs)}`
}

export type CertificatePorts = {
  pkiDir: string
  /** Where `status` finds the last problem. */
  runDir: string
  machine: string
  /** Never before the image was built. */
  nowMs(): number
  random(): number
  sleep(ms: number): Promise<void>
  /** Asks kiln-boot, as this machine. */
  renew(csr: string): Promise<string>
  log: Log
}

/** Where the keeper leaves why the last renewal failed; absent while all is well. */
export const renewalProblemFile = (runDir: string): string => join(runDir, 'certificate-problem')

/**
 * Renews the machine's certificate when two thirds of its life are over, as long as it takes: each try is bounded, and so is
 * the pause between two. All who connect with the certificate read it then, so nobody is told.
 */
export class CertificateKeeper {
  readonly #ports: CertificatePorts
  readonly #place: number
  #failures = 0
  /** What the file of the last problem says; unknown at the start, when an earlier daemon may have left one. */
  #noted: string | undefined

  constructor(ports: CertificatePorts) {
    this.#ports = ports
    this.#place = ports.random()
  }

  async run(stopping: AbortSignal): Promise<void> {
    while (!stopping.aborted) await this.#ports.sleep(await this.step())
  }

  /** Looks and does what is due; answers how long to pause. */
  async step(): Promise<number> {
    const { pkiDir, log, machine, random } = this.#ports
    try {
      const { cert, key } = readMachineTls(pkiDir)
      const life = certificateLife(cert)
      const plan = planRenewal(life, { nowMs: this.#ports.nowMs(), place: this.#place })
      let ms = lookMs
      switch (plan.kind) {
        case 'wait':
          ms = plan.ms
          break
        case 'expired':
        case 'renew':
          await replaceMachineCertificate(pkiDir, await this.#ask(createCsr(key, machine), plan.kind, life))
          log.info({ until: new Date(this.#untilMs()).toISOString() }, 'certificate renewed')
      }
      await this.#note('')
      this.#failures = 0
      return ms
    } catch (error) {
      this.#failures += 1
      const pauseMs = Math.round(retryPauseMs(this.#failures, random()))
      log.warn({ error, pauseMs }, describeError(error))
      await this.#note(describeError(error))
      return pauseMs
    }
  }

  async #ask(csr: string, kind: 'renew' | 'expired', life: CertificateLife): Promise<string> {
    try {
      return await this.#ports.renew(csr)
    } catch (cause) {
      if (kind === 'renew') throw cause
      const ended = new Date(life.untilMs).toISOString()
      throw new Fault('CERTIFICATE_EXPIRED', `the certificate of this machine ended at ${ended}`, {
        cause,
        remedy: expiredRemedy,
      })
    }
  }

  #untilMs(): number {
    return certificateLife(readMachineTls(this.#ports.pkiDir).cert).untilMs
  }

  async #note(problem: string): Promise<void> {
    if (problem === this.#noted) return
    await atomicWrite(renewalProblemFile(this.#ports.runDir), problem).catch((error: unknown) =>
      this.#ports.log.debug({ error }, 'status file not written'),
    )
    this.#noted = problem
  }
}
