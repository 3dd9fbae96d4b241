import type { Member } from '@kiln/etcd-api/rpc'
import { Fault } from '@kiln/service'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import type { KvPorts } from './ports.ts'
import { asJson, leaf, type Session } from './session.ts'
import { hex, idOf } from './text.ts'

/** `kiln kv member list|add|remove|promote|update`, and `move-leader`. */
export function addMemberCommands(kv: Command, ports: KvPorts): void {
  const member = kv.command('member').description('members of the cluster')
  leaf(member.command('list').description('all members'), ports, async (session) => {
    const answer = await session.call(calls.memberList, { linearizable: true }, 'list members')
    if (!asJson(session, calls.memberList, answer)) printMembers(session, answer.members)
  })
  leaf(
    member
      .command('add')
      .description('add a member; then start it with the settings this prints')
      .argument('<name>')
      .requiredOption('--peer-urls <urls>', 'where the others reach it')
      .option('--learner', 'without a vote, until it is promoted'),
    ports,
    add,
  )
  leaf(
    member.command('remove').description('remove a member').argument('<id>'),
    ports,
    async (session, [id = '']) => {
      const answer = await session.call(calls.memberRemove, { ID: idOf(id, 'member') }, `remove member ${id}`)
      if (!asJson(session, calls.memberRemove, answer)) session.ports.print(`Member ${id} removed`)
    },
  )
  leaf(
    member.command('promote').description('give a learner its vote').argument('<id>'),
    ports,
    async (session, [id = '']) => {
      const answer = await session.call(
        calls.memberPromote,
        { ID: idOf(id, 'member') },
        `promote member ${id}`,
      )
      if (!asJson(session, calls.memberPromote, answer)) session.ports.print(`Member ${id} promoted`)
    },
  )
  leaf(
    member
      .command('update')
      .description("change a member's peer URLs")
      .argument('<id>')
      .requiredOption('--peer-urls <urls>', 'where the others reach it from now on'),
    ports,
    async (session, [id = ''], { peerUrls }: { peerUrls: string }) => {
      const request = { ID: idOf(id, 'member'), peerURLs: peerUrls.split(',') }
      const answer = await session.call(calls.memberUpdate, request, `update member ${id}`)
      if (!asJson(session, calls.memberUpdate, answer)) session.ports.print(`Member ${id} updated`)
    },
  )
  leaf(
    kv.command('move-leader').description('hand the leadership to another member').argument('<id>'),
    ports,
    moveLeader,
  )
}

async function add(
  session: Session,
  [name = '']: string[],
  flags: { peerUrls: string; learner?: boolean },
): Promise<void> {
  const peerURLs = flags.peerUrls.split(',')
  const request = { peerURLs, isLearner: flags.learner === true }
  const answer = await session.call(calls.memberAdd, request, `add member ${name}`)
  if (asJson(session, calls.memberAdd, answer)) return
  const added = answer.member!
  const others = answer.members.filter(({ ID }) => ID !== added.ID)
  const cluster = [...others, { ...added, name }].flatMap((each) =>
    each.peerURLs.map((url) => `${each.name}=${url}`),
  )
  const { ports } = session
  ports.print(`Member ${hex(added.ID)} added to cluster ${hex(answer.header?.clusterId ?? 0n)}`)
  ports.print('')
  ports.print(`ETCD_NAME="${name}"`)
  ports.print(`ETCD_INITIAL_CLUSTER="${cluster.join(',')}"`)
  ports.print(`ETCD_INITIAL_ADVERTISE_PEER_URLS="${peerURLs.join(',')}"`)
  ports.print('ETCD_INITIAL_CLUSTER_STATE="existing"')
}

function printMembers(session: Session, members: readonly Member[]): void {
  session.rows(
    ['ID', 'STATUS', 'NAME', 'PEERS', 'CLIENTS', 'LEARNER'],
    members.map(({ ID, name, peerURLs, clientURLs, isLearner }) => [
      hex(ID),
      name === '' ? 'unstarted' : 'started',
      name,
      peerURLs.join(','),
      clientURLs.join(','),
      String(isLearner),
    ]),
  )
}

/** Only the leader hands over: it is looked for among the endpoints. */
async function moveLeader(session: Session, [id = '']: string[]): Promise<void> {
  const { store, ports } = session
  const target = idOf(id, 'member')
  const asked = await Promise.allSettled(store.endpointUrls.map((endpoint) => store.status(endpoint)))
  const leader = asked
    .filter((each) => each.status === 'fulfilled')
    .map((each) => each.value)
    .find(({ leaderId, memberId }) => leaderId === memberId)
  if (leader === undefined)
    throw new Fault('STORE_NO_LEADER', 'none of the endpoints is the leader', {
      remedy: 'name all with --endpoints',
    })
  const doing = `move the leadership to ${id}`
  const answer = await session.call(calls.moveLeader, { targetID: target }, doing, { only: leader.endpoint })
  if (!asJson(session, calls.moveLeader, answer))
    ports.print(`Leadership transferred from ${hex(leader.memberId)} to ${hex(target)}`)
}
