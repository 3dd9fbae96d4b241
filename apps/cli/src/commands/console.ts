import { connect } from 'node:net'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { SerialLog } from '@kiln/vm'
import { requireLab, requireMachine, runningHost, stateFolder } from '../lab/state-folder.ts'
import type { CommandContext } from './context.ts'

/** Ctrl-], as telnet has it. */
const leaveKey = 0x1d

/** `kiln console NAME`: the machine's serial console, for as long as the person stays. */
export async function attachConsole(
  options: { state?: string; machine: string },
  context: CommandContext,
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const lab = requireLab(state)
  const machine = requireMachine(lab, options.machine)
  if (!runningHost(state)) {
    throw new Fault('CLUSTER_STOPPED', 'the cluster does not run', { remedy: 'start it with: kiln up' })
  }
  if (lab.kind === 'embedded')
    throw new Fault('EMBEDDED_UNSUPPORTED', 'simulated machines have no console', {
      remedy: `see what it wrote: kiln logs ${machine.name}`,
    })
  const socket = connect(join(state.sockets, `${machine.name}.ttyS0`))
  const { stdin, stdout } = process
  await new Promise<void>((resolve, reject) => {
    socket.once('error', (cause) =>
      reject(new Fault('MACHINE_OFF', `${machine.name} has no console now; is it switched on?`, { cause })),
    )
    socket.once('connect', () => {
      context.note(`console of ${machine.name}; Ctrl-] leaves, Enter may be needed for a prompt`)
      if (stdin.isTTY) stdin.setRawMode(true)
      stdin.resume()
    })
    socket.on('data', (chunk: Buffer) => stdout.write(chunk))
    stdin.on('data', (chunk: Buffer) => {
      if (chunk.includes(leaveKey)) socket.end()
      else socket.write(chunk)
    })
    stdin.once('end', () => socket.end())
    socket.once('close', () => resolve())
  }).finally(() => {
    if (stdin.isTTY) stdin.setRawMode(false)
    stdin.pause()
  })
}

/** `kiln logs NAME`: what the machine wrote to its console, and with `follow` what it writes now. */
export async function logs(
  options: { state?: string; machine: string; follow: boolean; lines: number },
  context: CommandContext,
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const machine = requireMachine(requireLab(state), options.machine)
  const log = new SerialLog(state.machine(machine.name).serialLog)
  log.poll()
  for (const line of log.lines.slice(-options.lines)) context.print(line)
  if (options.follow) {
    log.onLine((line) => context.print(line))
    // The log's own timer does not keep the process alive; waiting for Ctrl-C does.
    await new Promise<void>((resolve) => {
      const alive = setInterval(() => undefined, 60_000)
      context.signal.addEventListener('abort', () => {
        clearInterval(alive)
        resolve()
      })
    })
  }
  log.close()
}
