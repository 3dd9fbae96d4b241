import type { EtcdClient } from '@kiln/etcd-api'
import { describeError, type Log } from '@kiln/service'

const retryMs = 3_000

/** An entry, or a key that went. */
export type PrefixChange = { key: string; text: string | undefined }

/**
 * Follows what the store has below a prefix, until `signal`: `reset` gets all of it, at the start and whenever changes may have
 * been missed, `changed` what changed since. While the store is away neither is called.
 */
export async function followPrefix(input: {
  store: Pick<EtcdClient, 'getPrefix' | 'watch'>
  prefix: string
  log: Log
  signal: AbortSignal
  reset(entries: { key: string; text: string }[]): void
  changed(changes: PrefixChange[]): void
}): Promise<void> {
  const { store, prefix, log, signal } = input
  const follow = async (): Promise<void> => {
    const { entries, revision } = await store.getPrefix(prefix)
    input.reset(entries)
    for await (const outcome of store.watch(prefix, { startRevision: revision + 1n, signal })) {
      if (outcome.kind === 'compacted') return
      input.changed(
        outcome.events.map((event) =>
          event.kind === 'put'
            ? { key: event.entry.key, text: event.entry.text }
            : { key: event.key, text: undefined },
        ),
      )
    }
  }
  while (!signal.aborted) {
    try {
      await follow()
    } catch (error) {
      log.debug({ prefix, error: describeError(error) }, 'the store cannot be followed, trying on')
      await pause(retryMs, signal)
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done, { once: true })
    function done(): void {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    if (signal.aborted) done()
  })
}
