import type { KeyPair } from '@kiln/pki'
import type { Log } from '@kiln/service'
import type { AuditLog } from './audit-log.ts'
import type { ChannelFiles } from './channel-files.ts'
import type { ClusterFile } from './cluster-file.ts'
import type { DataDirectory } from './data-directory.ts'
import type { EnrolmentDesk } from './enrolment.ts'
import type { MachineRegistry } from './machine-registry.ts'
import type { ReleaseShelf } from './release-shelf.ts'
import type { BootSettings } from './settings.ts'
import type { StoreMembership } from './store-membership.ts'

/** Everything a request handler may use. */
export type BootContext = {
  settings: BootSettings
  log: Log
  data: DataDirectory
  machines: MachineRegistry
  enrolments: EnrolmentDesk
  cluster: ClusterFile
  membership: StoreMembership
  channels: ChannelFiles
  releases: ReleaseShelf
  audit: AuditLog
  ca: KeyPair
  caHash: string
  /** Port that was bound for TLS, for URLs made from a request's host. */
  tlsPort: () => number
}
