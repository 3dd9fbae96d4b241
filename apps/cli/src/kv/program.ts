import type { Command } from 'commander'
import { addEndpointCommands } from './endpoints.ts'
import { addHistoryCommands } from './history.ts'
import { addKeyCommands } from './keys.ts'
import { addLeaseCommands } from './lease.ts'
import { addLockCommands } from './lock.ts'
import { addMemberCommands } from './members.ts'
import type { KvPorts } from './ports.ts'
import { addTxnCommand } from './txn.ts'
import { addUpkeepCommands } from './upkeep.ts'
import { addUserCommands } from './users.ts'
import { addWatchCommand } from './watch.ts'

/** What operators do with etcdctl, and the history of keys, as commands of `kiln kv`. */
export function addStoreCommands(kv: Command, ports: KvPorts): void {
  addKeyCommands(kv, ports)
  addTxnCommand(kv, ports)
  addWatchCommand(kv, ports)
  addLeaseCommands(kv, ports)
  addLockCommands(kv, ports)
  addMemberCommands(kv, ports)
  addEndpointCommands(kv, ports)
  addUserCommands(kv, ports)
  addUpkeepCommands(kv, ports)
  addHistoryCommands(kv, ports)
}
