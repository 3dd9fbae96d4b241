import { describeError, type Log } from '@kiln/service'
import { hideBootLoader, showBootLoader } from './esp.ts'

export type ReprovisionPorts = {
  espDir: string
  /** Time between two looks. */
  lookMs: number
  /** Whether the boot server wants this machine installed again. */
  wanted(): Promise<boolean>
  sleep(ms: number): Promise<void>
  log: Log
}

/**
 * Looks again and again whether an operator set this machine to reprovision. Its disk then has nothing to boot any more,
 * so that the next boot, whenever that is, goes to the network and runs Ignition again; an operator who withdraws it
 * gets the boot loader back. A boot server that does not answer changes nothing.
 */
export async function watchReprovision(ports: ReprovisionPorts, stopping: AbortSignal): Promise<void> {
  const { espDir, lookMs, wanted, sleep, log } = ports
  while (!stopping.aborted) {
    try {
      if (await wanted()) {
        if (await hideBootLoader(espDir))
          log.warn({}, 'set to reprovision: the next boot installs this machine again')
      } else if (await showBootLoader(espDir))
        log.warn({}, 'reprovisioning was withdrawn: the next boot starts from the disk')
    } catch (error) {
      log.debug({ reason: describeError(error) }, 'not known whether this machine is to be reprovisioned')
    }
    await sleep(lookMs)
  }
}
