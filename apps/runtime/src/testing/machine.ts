import type { StoredImage } from '@kiln/oci'
import { type PodManifest, parsePod } from '@kiln/schemas'
import { assert, createLog, Fault } from '@kiln/service'
import { VirtualClock } from '@kiln/simulation'
import type { NewEvent } from '../events/event-log.ts'
import { Pod } from '../pod.ts'
import type { PodKernel } from '../pod-kernel.ts'
import type { PodRecord } from '../pod-record.ts'
import type { Exit } from '../restart-policy.ts'

/** A pod of one container; `spec` says what is otherwise. */
export const manifest = (spec: object = {}): PodManifest => {
  const { pod, problems } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'hello' },
    spec: {
      containers: [{ name: 'web', image: 'boot://hello.tar' }],
      terminationGracePeriodSeconds: 5,
      ...spec,
    },
  })
  assert(pod, JSON.stringify(problems))
  return pod
}

type Running = { attempt: number; exit?: Exit }

/** A machine in memory: containers run until the test ends them. */
export function machine() {
  const clock = new VirtualClock()
  const running = new Map<string, Running>()
  const calls: string[] = []
  const faults: { image?: Fault; sandbox?: Fault; start?: Fault } = {}
  let sandbox = false
  let onTerm: (name: string) => void = () => undefined
  let onExec: (name: string, command: readonly string[]) => Promise<void> = async () => undefined
  let saved: string | undefined
  let removed = false
  const events: NewEvent[] = []
  const exit = (code: number, signal = 0): Exit => ({
    code,
    signal,
    oomKilled: false,
    lost: false,
    finishedAtMs: clock.now(),
  })
  const end = (name: string, how: Exit): void => {
    const found = running.get(name)
    if (found) found.exit ??= how
  }
  const kernel: PodKernel = {
    findSandbox: async () => (sandbox ? { pid: 1, startTime: '1' } : undefined),
    statistics: async () => [],
    openSandbox: async () => {
      calls.push('open')
      if (faults.sandbox) throw faults.sandbox
      sandbox = true
      return { pid: 1, startTime: '1' }
    },
    startContainer: async ({ container, attempt }) => {
      calls.push(`start ${container.name} ${attempt}`)
      if (faults.start) throw faults.start
      running.set(container.name, { attempt })
      return { startedAtMs: clock.now() }
    },
    observe: async (_, name) => running.get(name)?.exit ?? (running.has(name) ? { pid: 42 } : 'gone'),
    signal: async (_, name, signal) => {
      calls.push(`${signal} ${name}`)
      if (signal === 'KILL') end(name, exit(137, 9))
      else onTerm(name)
    },
    forget: async (_, name) => {
      running.delete(name)
    },
    exec: (_, name, command) => {
      calls.push(`exec ${name} ${command.join(' ')}`)
      return onExec(name, command)
    },
    planExec: () => Promise.reject(new Fault('POD_NOT_RUNNING', 'nothing can be entered here')),
    close: async () => {
      calls.push('close')
      sandbox = false
      running.clear()
    },
  }
  const image = { digest: 'sha256:1', configDigest: 'sha256:2', chainId: 'sha256:3' } as StoredImage
  const open = (record: PodRecord, bootId = 'boot1'): Pod =>
    new Pod(record, {
      kernel,
      images: {
        acquire: async () => {
          if (faults.image) throw faults.image
          return image
        },
      },
      records: {
        load: async () => [],
        removeStaleExits: async () => undefined,
        save: async (value) => {
          saved = JSON.stringify(value)
        },
        remove: async () => {
          removed = true
        },
      },
      clock,
      log: createLog('test', 'silent'),
      machineId: 'node1',
      machineAddress: '10.77.0.11',
      bootId,
      freeAddress: () => '10.88.11.2',
      changed: () => undefined,
      backOffFirstMs: 1000,
      tell: (event) => events.push(event),
      removed: () => undefined,
      over: () => undefined,
    })
  return {
    clock,
    calls,
    faults,
    running,
    open,
    exit,
    end,
    onTerm: (fn: (name: string) => void) => {
      onTerm = fn
    },
    onExec: (fn: typeof onExec) => {
      onExec = fn
    },
    killSandbox: () => {
      sandbox = false
    },
    saved: () => JSON.parse(saved ?? 'null') as PodRecord,
    removed: () => removed,
    /** `reason container: message` of each event. */
    events: () =>
      events.map(
        ({ reason, container, message }) => `${reason}${container ? ` ${container}` : ''}: ${message}`,
      ),
  }
}

/** Lets promises run, and then time. */
export async function pass(clock: VirtualClock, ms = 0): Promise<void> {
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve()
  }
  await settle()
  for (const until = clock.now() + ms; clock.now() < until; ) {
    clock.advance(Math.min(100, until - clock.now()))
    await settle()
  }
}
