import type { Log } from '@kiln/service'
import { programCommand } from '../programs.ts'
import { ServiceProcess } from './service-process.ts'
import type { LabRecord, StateFolder } from './state-folder.ts'

/** The boot server of a cluster on this host. */
export function bootServer(
  state: StateFolder,
  lab: LabRecord,
  log: Log,
  changed: () => void,
): ServiceProcess {
  const { command, args } = programCommand('kiln-boot')
  return new ServiceProcess(
    {
      name: 'boot-server',
      command,
      args: [...args, ...bootServerFlags(state, lab)],
      logPath: state.bootLog,
    },
    log,
    changed,
  )
}

/** The boot server listens on the loopback only: QEMU's user network leads machines there as 10.0.2.2. */
function bootServerFlags(state: StateFolder, lab: LabRecord): string[] {
  const endpoints = lab.machines.map((machine) => `https://127.0.0.1:${machine.storePort}`).join(',')
  const guestHost = lab.kind === 'virtual' ? '10.0.2.2' : '127.0.0.1'
  return [
    ['--address', `127.0.0.1:${lab.bootPort}`],
    ['--tls-address', `127.0.0.1:${lab.bootTlsPort}`],
    ['--data-path', state.bootData],
    ['--assets-path', state.assets],
    ['--public-url', `http://${guestHost}:${lab.bootPort}`],
    ['--public-tls-url', `https://${guestHost}:${lab.bootTlsPort}`],
    ['--tls-names', '10.0.2.2,127.0.0.1,localhost'],
    ['--store-endpoints', endpoints],
    // Simulated machines are no store members: the store is beside them.
    ...(lab.kind === 'embedded' ? [['--machine-store-endpoints', endpoints]] : []),
  ].flat()
}
