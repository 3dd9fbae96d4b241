import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { networksOf } from './cni-machine.ts'

/** A daemon of its own, to be killed while it gives a pod its networks or takes them away: `{ at, connect | disconnect }`. */
const { at, connect, disconnect } = JSON.parse(process.argv[2] ?? '{}')
// For the plug-ins, which are to end it.
writeFileSync(join(at.path, 'daemon'), String(process.pid))
const networks = networksOf(at)
if (connect) await networks.connect(connect)
if (disconnect) await networks.disconnect(disconnect)
