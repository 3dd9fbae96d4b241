import type { EtcdClient, HeldLease } from '@kiln/etcd-api'
import { type MachineStatus, storeKeys } from '@kiln/schemas'
import type { Log } from '@kiln/service'

/** Seconds after which the store forgets a machine that stopped renewing. */
const leaseSeconds = 30
const retryMs = 2_000

/** This machine's record in the store, under a lease that is asked for until the store is there. */
export type MachineRecordKeeper = {
  /** Writes the record, now or as soon as the store answers. */
  publish(status: MachineStatus): void
  close(): Promise<void>
}

export function keepMachineRecord(
  store: EtcdClient,
  ports: { log: Log; sleep(ms: number): Promise<void> },
): MachineRecordKeeper {
  let wanted: MachineStatus | undefined
  let lease: HeldLease | undefined
  let writing: Promise<void> | undefined
  let closed = false

  async function write(): Promise<void> {
    for (let written: MachineStatus | undefined; !closed && wanted && wanted !== written; ) {
      const status = wanted
      try {
        lease ??= await store.holdLease({
          ttlSeconds: leaseSeconds,
          onLost: () => ports.log.warn({}, "this machine's lease was lost and is granted anew"),
          onGranted: () => start(true),
        })
        await store.put(storeKeys.machine(status.id), JSON.stringify(status), { lease: lease.id })
        written = status
      } catch (error) {
        ports.log.debug({ error }, 'the machine record could not be written yet')
        await ports.sleep(retryMs)
      }
    }
  }

  function start(again = false): void {
    if (writing && !again) return
    const run = (writing ?? Promise.resolve()).then(write)
    const ended = run.finally(() => {
      if (writing === ended) writing = undefined
    })
    writing = ended
  }

  return {
    publish: (status) => {
      wanted = status
      start()
    },
    close: async () => {
      closed = true
      await writing
      await lease
        ?.close()
        .catch((error: unknown) => ports.log.info({ error }, 'the lease runs out by itself'))
    },
  }
}
