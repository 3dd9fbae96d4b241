import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

export type PlannerProcess = {
  pid: number
  /** What its threads have used so far. */
  cpuMs(): number
  /** Ends it, and answers how many questions it has answered. */
  stop(): Promise<number>
}

/** Starts `kiln-oci planner` at a socket and waits until it serves. */
export async function startPlanner(command: string, socket: string): Promise<PlannerProcess> {
  const child: ChildProcess = spawn(command, ['planner', '--socket', socket], {
    stdio: ['ignore', 'inherit', 'pipe'],
  })
  const exited = once(child, 'exit')
  const lines = createInterface({ input: child.stderr! })
  let answered = 0
  const serves = new Promise<void>((resolve) => {
    lines.on('line', (line) => {
      const said = JSON.parse(line) as { msg?: string; answered?: number }
      answered = said.answered ?? answered
      if (said.msg === 'planning for kiln-oci') resolve()
      else if (said.answered === undefined && said.msg !== 'stopping') process.stderr.write(`${line}\n`)
    })
  })
  await Promise.race([
    serves,
    exited.then(() => {
      throw new Error('the planner ended before it served')
    }),
  ])
  const pid = child.pid!
  return {
    pid,
    cpuMs: () => cpuMs(pid),
    stop: async () => {
      child.kill('SIGTERM')
      await exited
      return answered
    },
  }
}

/** The first number of each thread's schedstat is its time on a CPU in ns. */
function cpuMs(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`)
  const times = threads.map((id) => readFileSync(`/proc/${pid}/task/${id}/schedstat`, 'utf8').split(' ')[0])
  return times.reduce((sum, time) => sum + Number(time), 0) / 1e6
}
