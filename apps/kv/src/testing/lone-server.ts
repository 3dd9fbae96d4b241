import { createLog, systemClock } from '@kiln/service'
import type { ServiceContext } from '../api/context.ts'
import { createWatchService } from '../api/watch-service.ts'
import { AuthKeeper } from '../auth/auth-keeper.ts'
import type { Consensus } from '../consensus/types.ts'
import { Measures } from '../http/measures.ts'
import { LeaseKeeper } from '../leases/lease-keeper.ts'
import { serveClients } from '../serve.ts'
import { loadSettings } from '../settings/settings.ts'
import { Reclaimer } from '../state/reclaimer.ts'
import { type Applied, StoreState } from '../state/state-machine.ts'
import { loneConsensus } from './lone-consensus.ts'
import { freePorts } from './member-process.ts'

export type LoneServer = { url: string; context: ServiceContext; close(): Promise<void> }

/** The client side of a member over a consensus of one, or over what a test makes of it. */
export async function startLoneServer(
  flags: string[] = [],
  change: (consensus: Consensus<Applied>) => Partial<Consensus<Applied>> = () => ({}),
): Promise<LoneServer> {
  const [port] = await freePorts(1)
  const url = `http://127.0.0.1:${port}`
  const { settings } = loadSettings({
    argv: [`--listen-client-urls=${url}`, `--advertise-client-urls=${url}`, ...flags],
    env: {},
    readFile: () => '',
  })
  const state = new StoreState()
  const log = createLog('test', 'silent')
  const clock = systemClock
  const leases = new LeaseKeeper({ state, clock, log, electionMs: settings.electionMs })
  const lone = loneConsensus(state, clock, (body) => leases.onRequest(body))
  const consensus = { ...lone, ...change(lone) }
  const reclaimer = new Reclaimer({
    state,
    clock,
    batchRevisions: settings.compactionBatch,
    pauseMs: settings.compactionPauseMs,
  })
  const measures = new Measures()
  const auth = new AuthKeeper({ settings, state, consensus, clock })
  const context: ServiceContext = {
    settings,
    state,
    consensus,
    leases,
    reclaimer,
    auth,
    clock,
    log,
    measures,
  }
  const watches = createWatchService(context)
  state.listen({
    onApplied: () => {
      watches.advance()
      reclaimer.kick()
    },
    onReplaced: () => {
      watches.reset()
      auth.onReplaced()
    },
    onTokenGiven: (name, token) => auth.onTokenGiven(name, token),
    onAuthChanged: (change) => auth.onAuthChanged(change),
    onLeaseGranted: (id, ttl) => leases.onGranted(id, ttl),
    onLeaseGone: (id) => leases.onGone(id),
  })
  leases.start(consensus)
  const served = await serveClients(context, watches)
  return {
    url,
    context,
    close: async () => {
      await served.close()
      await auth.stop()
      await leases.stop()
      await reclaimer.stop()
    },
  }
}
