import { type Demand, type Refusal, refused } from '@kiln/mvcc'
import { decodeRestore } from '../api/history-messages.ts'
import { decodeDelete, decodePut, decodeTxn } from '../api/requests.ts'
import type { Command } from './command.ts'
import type { Applied } from './state-machine.ts'

/**
 * What whoever proposed a command needs a right for. Nothing for what only members propose, and for alarms and
 * downgrades, which the service has let through.
 */
export function demandOf(command: Command): Demand | undefined {
  switch (command.kind) {
    case 'put':
      return { kind: 'put', request: decodePut(command.request) }
    case 'delete':
      return { kind: 'delete', request: decodeDelete(command.request) }
    case 'txn':
      return { kind: 'txn', request: decodeTxn(command.request) }
    case 'restore':
      return restoreDemand(decodeRestore(command.request))
    case 'lease-revoke':
      return { kind: 'lease-revoke', id: command.id }
    case 'compact':
    case 'lease-grant':
      return { kind: 'login' }
    case 'auth':
      return { kind: 'admin' }
    case 'lease-expire':
    case 'lease-checkpoint':
    case 'alarm':
    case 'downgrade':
    case 'authenticate':
    case 'raise-version':
      return undefined
  }
}

/** To restore is to write a range, and what it then holds tells what it held before: the right to do both is needed. */
export function restoreDemand({ key, rangeEnd }: { key: Uint8Array; rangeEnd: Uint8Array }): Demand {
  return { kind: 'delete', request: { key, rangeEnd, prevKv: true } }
}

/** The result of a command that was refused before it was applied. */
export function refuseCommand(command: Command, refusal: Refusal): Applied {
  switch (command.kind) {
    case 'put':
    case 'delete':
    case 'txn':
    case 'compact':
    case 'lease-grant':
    case 'lease-revoke':
    case 'restore':
    case 'auth':
    case 'authenticate':
      return { kind: command.kind, outcome: refused(refusal) }
    case 'lease-expire':
    case 'lease-checkpoint':
    case 'alarm':
    case 'downgrade':
    case 'raise-version':
    case 'mark-time':
      throw new Error(`assertion failed: nobody is refused a ${command.kind}`)
  }
}
