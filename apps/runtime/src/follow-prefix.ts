import type { EtcdClient } from '@kiln/etcd-api'
import { describeError, type Log } from '@kiln/service'

const retryFirstMs = 100
const retryMaxMs = 5_000

/** An entry, or a key that went. */
export type PrefixChange = { key: string; text: string | undefined }

/**
 * Follows what the store has below a prefix, until `signal`: `reset` gets all of it, at the start and whenever changes may have
 * been missed, `changed` what changed since. While the store is away neither is called; it is tried at once when it has just answered,
 * then after pauses that double up to 5 s.
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
  /** Pause before the next try: none after a watch that has told something, or that has lasted. */
  let pauseMs = 0
  const follow = async (): Promise<void> => {
    const { entries, revision } = await store.getPrefix(prefix)
    input.reset(entries)
    for await (const outcome of store.watch(prefix, { startRevision: revision + 1n, signal })) {
      if (outcome.kind === 'compacted') return
      pauseMs = 0
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
    const began = performance.now()
    try {
      await follow()
    } catch (error) {
      log.debug({ prefix, error: describeError(error) }, 'the store cannot be followed, trying on')
      if (performance.now() - began > retryMaxMs) pauseMs = 0
      if (pauseMs > 0) await pause(pauseMs, signal)
      pauseMs = Math.min(retryMaxMs, Math.max(retryFirstMs, 2 * pauseMs))
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
