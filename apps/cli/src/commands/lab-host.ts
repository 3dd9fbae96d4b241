import { runDaemon } from '@kiln/service'
import { EmbeddedHost } from '../embedded/embedded-host.ts'
import { runSimulatedMachine, type SimulatedMachineSettings } from '../embedded/simulated-machine.ts'
import { LabHost } from '../lab/lab-host.ts'
import { requireLab, stateFolder } from '../lab/state-folder.ts'

/** The hidden `kiln lab-host`: owns one cluster's machines, boot server and what joins them until it is asked to stop. */
export async function labHost(options: { state: string }, environment: NodeJS.ProcessEnv): Promise<void> {
  await runDaemon('kiln-lab-host', async (log) => {
    const state = stateFolder(options.state, environment)
    const ended = (): void => process.exit(0)
    const host =
      requireLab(state).kind === 'virtual'
        ? await LabHost.start(state, log, ended)
        : await EmbeddedHost.start(state, log, ended)
    return { stop: () => host.stop(0) }
  })
}

/** The hidden `kiln simulated-machine`: one machine of an embedded cluster. */
export async function simulatedMachine(options: SimulatedMachineSettings): Promise<void> {
  await runDaemon('kiln-simulated-machine', async (log, stopping) => {
    const running = runSimulatedMachine(options, log, stopping)
    return { stop: () => running }
  })
}
