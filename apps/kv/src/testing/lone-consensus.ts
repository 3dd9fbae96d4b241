import type { Clock } from '@kiln/service'
import type { Consensus, Member, StateMachine } from '../consensus/types.ts'

/** A consensus of one that agrees with itself at once and forgets everything: for tests of what stands on it. */
export function loneConsensus<Result>(
  stateMachine: StateMachine<Result>,
  clock: Clock,
  onRequest: (body: Uint8Array) => Promise<Uint8Array>,
): Consensus<Result> {
  const self: Member = {
    id: 7n,
    name: 'lone',
    peerUrls: ['http://127.0.0.1:2380'],
    clientUrls: ['http://127.0.0.1:2379'],
    learner: false,
  }
  const members = [self]
  let index = 0
  /** One entry after the other. */
  let last: Promise<unknown> = Promise.resolve()
  return {
    propose: (data) => {
      const applied = last.then(() => stateMachine.apply([{ index: ++index, term: 1, data }]))
      last = applied.catch(() => undefined)
      return applied.then((results) => results[0]!)
    },
    readIndex: async () => index,
    requestLeader: onRequest,
    leadershipConfirmedAt: () => clock.now(),
    confirmLeadership: async () => undefined,
    status: () => ({
      id: self.id,
      clusterId: 9n,
      role: 'leader',
      term: 1,
      leader: self.id,
      lastIndex: index,
      committedIndex: index,
      appliedIndex: index,
      appliedTerm: 1,
      snapshotIndex: 0,
      walBytes: 0,
      progress: [],
      joint: false,
      diskFull: false,
    }),
    id: () => self.id,
    clusterId: () => 9n,
    leader: () => self.id,
    isLeader: () => true,
    term: () => 1,
    appliedIndex: () => index,
    members: () => members,
    onLeaderChange: () => () => undefined,
    onMembersChange: () => () => undefined,
    transferLeader: async () => undefined,
    addMember: async ({ peerUrls, learner, name = '' }) => {
      const member = { id: BigInt(members.length + 100), name, peerUrls, clientUrls: [], learner }
      members.push(member)
      return member
    },
    removeMember: async (id) => {
      members.splice(
        members.findIndex((member) => member.id === id),
        1,
      )
    },
    changeMembers: async () => undefined,
    promoteMember: async (id) => {
      members.find((member) => member.id === id)!.learner = false
    },
    updateMember: async (id, change) => {
      Object.assign(members.find((member) => member.id === id)!, change)
    },
    compactLog: async () => undefined,
    stop: async () => undefined,
  }
}
