import type { Watch, WatchOutcome } from '@kiln/etcd-api'
import { createLog, Fault } from '@kiln/service'
import { expect, test, vi } from 'vitest'
import { followServices } from './follow-services.ts'
import { ServiceDirectory } from './service-directory.ts'

type Keys = Map<string, string>

/** A store in memory: what it has is told at once, and what it sends is up to the test. */
function fakeStore(keys: Keys) {
  const watches: { startRevision: bigint | undefined; send(outcome: WatchOutcome | Error | 'end'): void }[] =
    []
  const state = { away: false }
  return {
    state,
    watches,
    store: {
      getPrefix: async () => {
        if (state.away) throw new Fault('STORE_UNREACHABLE', 'away')
        const entries = [...keys].map(([key, text]) => ({ key, text }))
        return { entries, revision: 5n, count: entries.length, more: false } as never
      },
      watch: (_: unknown, options?: { startRevision?: bigint }) => {
        const queue: (WatchOutcome | Error | 'end')[] = []
        let wake = (): void => undefined
        watches.push({
          startRevision: options?.startRevision,
          send: (outcome) => {
            queue.push(outcome)
            wake()
          },
        })
        const iterate = async function* (): AsyncGenerator<WatchOutcome> {
          for (;;) {
            const next = queue.shift()
            if (next === 'end') return
            if (next instanceof Error) throw next
            if (next) yield next
            else
              await new Promise<void>((resolve) => {
                wake = resolve
              })
          }
        }
        return Object.assign(iterate(), { close: () => undefined }) as unknown as Watch
      },
    },
  }
}

const record = (address: string, ready = true): string =>
  JSON.stringify({ address, ready, ports: [{ port: 80 }] })
const put = (key: string, text: string): WatchOutcome =>
  ({ kind: 'events', revision: 6n, events: [{ kind: 'put', entry: { key, text } }] }) as WatchOutcome
const gone = (key: string): WatchOutcome =>
  ({ kind: 'events', revision: 7n, events: [{ kind: 'delete', key }] }) as WatchOutcome

test('the directory is what the store has, follows it, and keeps the last it heard while the store is away', async () => {
  vi.useFakeTimers()
  try {
    const keys: Keys = new Map([
      ['/kiln/services/web/node2:a', record('10.77.0.12')],
      ['/kiln/services/web/odd', record('10.77.0.13')],
    ])
    const { store, state, watches } = fakeStore(keys)
    const directory = new ServiceDirectory('node1')
    const stop = new AbortController()
    const found = (): unknown =>
      directory.find({ service: 'web' })?.map(({ machine, record: { ready } }) => `${machine} ${ready}`)
    const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(10)
    const done = followServices({
      store,
      directory,
      log: createLog('test', 'silent'),
      signal: stop.signal,
    })
    await settle()
    expect(found()).toEqual(['node2 true'])
    expect(watches[0]?.startRevision).toBe(6n)
    watches[0]?.send(put('/kiln/services/web/node3:a', record('10.77.0.13')))
    watches[0]?.send(put('/kiln/services/web/node2:a', record('10.77.0.12', false)))
    await settle()
    expect(found()).toEqual(['node2 false', 'node3 true'])
    // What cannot be read any more is no instance any more.
    watches[0]?.send(put('/kiln/services/web/node2:a', 'no JSON'))
    await settle()
    expect(found()).toEqual(['node3 true'])
    state.away = true
    watches[0]?.send(new Fault('STORE_FAILED', 'broken'))
    await vi.advanceTimersByTimeAsync(60_000)
    expect(found()).toEqual(['node3 true'])
    state.away = false
    keys.set('/kiln/services/web/node4:a', record('10.77.0.14'))
    await vi.advanceTimersByTimeAsync(3_100)
    expect(found()).toEqual(['node2 true', 'node4 true'])
    watches[1]?.send(gone('/kiln/services/web/node2:a'))
    watches[1]?.send(gone('/kiln/services/web/node4:a'))
    await settle()
    expect(found()).toBeUndefined()
    watches[1]?.send({ kind: 'compacted', compactRevision: 9n })
    await settle()
    expect(found()).toEqual(['node2 true', 'node4 true'])
    stop.abort()
    watches[2]?.send('end')
    await done
  } finally {
    vi.useRealTimers()
  }
})
