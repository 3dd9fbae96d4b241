import { createHash } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Where a virtual cluster has its sockets: short, see unix(7) on `sun_path`, and the same for the same state folder. */
export const clusterSocketFolder = (stateFolder: string): string =>
  join(tmpdir(), `kiln-${createHash('sha256').update(stateFolder).digest('hex').slice(0, 10)}`)
