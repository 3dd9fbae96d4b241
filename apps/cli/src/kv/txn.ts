import type { RangeResponse, ResponseOp } from '@kiln/etcd-api/rpc'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import { printPairs } from './keys.ts'
import { type KvPorts, readInput } from './ports.ts'
import { asJson, leaf, type Session } from './session.ts'
import { parseTxn } from './txn-text.ts'

const form = `
The transaction, as etcdctl reads it:
  mod("key") > "0"          comparisons: create mod ver val lease, with = != < >

  put key "a value"         what is done if all hold: put, get, del

  get key                   what is done if not`

/** `kiln kv txn`: a transaction from standard input. */
export function addTxnCommand(kv: Command, ports: KvPorts): void {
  leaf(
    kv
      .command('txn')
      .description('a transaction, read from standard input')
      .option('-i, --interactive', 'as etcdctl has it; the form is the same')
      .addHelpText('after', form),
    ports,
    txn,
  )
}

async function txn(session: Session): Promise<void> {
  const { ports } = session
  if (ports.input.isTTY)
    ports.note('comparisons, an empty line, what to do, an empty line, what else; Ctrl-D ends:')
  const answer = await session.call(
    calls.txn,
    parseTxn((await readInput(ports)).toString('utf8')),
    'transaction',
  )
  if (asJson(session, calls.txn, answer)) return
  ports.print(answer.succeeded ? 'SUCCESS' : 'FAILURE')
  for (const each of answer.responses) {
    ports.print('')
    printResponse(session, each)
  }
}

function printResponse(session: Session, { response }: ResponseOp): void {
  switch (response?.$case) {
    case 'responsePut':
      session.ports.print('OK')
      if (response.value.prevKv) printPairs(session, [response.value.prevKv], false)
      break
    case 'responseDeleteRange':
      session.ports.print(response.value.deleted.toString())
      printPairs(session, response.value.prevKvs, false)
      break
    case 'responseRange':
      printRange(session, response.value)
      break
    case 'responseTxn':
      session.ports.print(response.value.succeeded ? 'SUCCESS' : 'FAILURE')
      for (const inner of response.value.responses) printResponse(session, inner)
      break
  }
}

function printRange(session: Session, { kvs, count }: RangeResponse): void {
  if (kvs.length === 0 && count > 0n) session.ports.print(count.toString())
  else printPairs(session, kvs, false)
}
