import { availableParallelism, setPriority } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Fault } from '@kiln/service'
import { compareSync, hashSync } from 'bcryptjs'

/** What a worker thread of this module is told that it is. */
const role = 'kiln-kv passwords'
/** Threads at most: passwords must not take the processors from the store. */
const workersMax = 2
const waitingMaxDefault = 64
/** A third of the loop's weight where processors are scarce: at a tenth a login took longer than clients wait. */
const workerPriority = 5

type Job =
  | { kind: 'hash'; password: string; cost: number }
  | { kind: 'compare'; password: string; hash: string }
type Waiting = { job: Job; settle: (result: unknown, error: Fault | undefined) => void }

/** bcrypt on threads of its own, so that however many passwords are tried, the loop goes on. */
export type PasswordPool = {
  hash(password: string): Promise<string>
  compare(password: string, hash: string): Promise<boolean>
  stop(): Promise<void>
}

/** Threads start with the first password. Beyond `waitingMax` waiting ones all are refused as too many. */
export function createPasswordPool(options: { cost: number; waitingMax?: number }): PasswordPool {
  const { cost, waitingMax = waitingMaxDefault } = options
  const queue: Waiting[] = []
  const idle: Worker[] = []
  const busy = new Map<Worker, Waiting>()
  const size = Math.min(workersMax, availableParallelism())
  let isStopped = false

  const finish = (worker: Worker, result: unknown, error?: Fault): void => {
    const waiting = busy.get(worker)
    busy.delete(worker)
    waiting?.settle(result, error)
  }
  const start = (): Worker => {
    const worker = new Worker(new URL(import.meta.url), { workerData: role, argv: [], stdin: false })
    worker.unref()
    worker.on('message', (result: unknown) => {
      finish(worker, result)
      idle.push(worker)
      pump()
    })
    worker.on('error', (cause) => {
      if (idle.includes(worker)) idle.splice(idle.indexOf(worker), 1)
      finish(
        worker,
        undefined,
        new Fault('STORE_PASSWORD_FAILED', 'a password could not be hashed', { cause }),
      )
      pump()
    })
    return worker
  }
  const pump = (): void => {
    while (queue.length > 0 && !isStopped) {
      const worker = idle.pop() ?? (busy.size < size ? start() : undefined)
      if (!worker) return
      const waiting = queue.shift()!
      busy.set(worker, waiting)
      worker.postMessage(waiting.job)
    }
  }
  const run = <T>(job: Job): Promise<T> =>
    new Promise((resolve, reject) => {
      if (isStopped) throw new Fault('STORE_STOPPED', 'the member is stopping')
      if (queue.length >= waitingMax) {
        throw new Fault('STORE_TOO_MANY_REQUESTS', `${waitingMax} passwords are waiting already`)
      }
      queue.push({ job, settle: (result, error) => (error ? reject(error) : resolve(result as T)) })
      pump()
    })
  return {
    hash: (password) => run({ kind: 'hash', password, cost }),
    compare: (password, hash) => run({ kind: 'compare', password, hash }),
    stop: async () => {
      isStopped = true
      const workers = [...idle.splice(0), ...busy.keys()]
      const stopped = new Fault('STORE_STOPPED', 'the member is stopping')
      for (const { settle } of [...queue.splice(0), ...busy.values()]) settle(undefined, stopped)
      busy.clear()
      await Promise.all(workers.map((worker) => worker.terminate()))
    },
  }
}

/** What the threads do. The module is their program too, because a bundle is a single file. */
function serve(): void {
  // On Linux this is the priority of the thread.
  setPriority(0, workerPriority)
  parentPort!.on('message', (job: Job) => {
    parentPort!.postMessage(
      job.kind === 'hash' ? hashSync(job.password, job.cost) : compareSync(job.password, job.hash),
    )
  })
}

if (!isMainThread && workerData === role) serve()
