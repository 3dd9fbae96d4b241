import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Fault, runDaemon } from '@kiln/service'
import { servePlanner } from './service.ts'

type Start = { script: string; args: string[]; env: Record<string, string | undefined> }

/** `kiln-oci planner [--socket PATH]`: the service in the foreground, until SIGTERM or SIGINT. */
export async function runPlanner(start: Start): Promise<void> {
  await runDaemon('kiln-oci-planner', async (log) => {
    const socket = chooseSocket(start)
    const service = await servePlanner({ socket, script: start.script })
    log.info({ socket }, 'planning for kiln-oci')
    return {
      stop: async () => {
        await service.stop()
        log.info({ answered: service.answered() }, 'stopped')
      },
    }
  })
}

/** Where the front looks: `connect_service` of native/oci-ask.c. */
function chooseSocket({ args, env }: Start): string {
  const named = socketOption(args) ?? env['KILN_OCI_PLANNER_SOCKET']
  if (named !== undefined) return named
  const folder = isMachinesRoot() ? '/run' : env['XDG_RUNTIME_DIR']
  if (!folder?.startsWith('/'))
    throw new Fault('USAGE', 'there is no folder for the socket: set XDG_RUNTIME_DIR or --socket')
  return join(folder, 'kiln/oci-planner/socket')
}

function socketOption(args: string[]): string | undefined {
  try {
    return parseArgs({ args, options: { socket: { type: 'string' } } }).values.socket
  } catch (cause) {
    throw new Fault('USAGE', 'kiln-oci planner [--socket PATH]', { cause })
  }
}

/** Root, and not only of a user namespace that has a part of the ids. */
function isMachinesRoot(): boolean {
  const map = readFileSync('/proc/self/uid_map', 'utf8').trim().split(/\s+/)
  return process.geteuid?.() === 0 && map.join(' ') === `0 0 ${2 ** 32 - 1}`
}
