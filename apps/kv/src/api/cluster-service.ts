import type { CallInfo } from '@kiln/wire'
import type { Member } from '../consensus/types.ts'
import { checkServing, headerOf, readIndex, type ServiceContext, unary } from './context.ts'
import { fail, statuses } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'
import { decodeMemberAdd, decodeMemberId, decodeMemberList, decodeMemberUpdate } from './requests.ts'
import { encodeMemberAdd, encodeMembers } from './responses.ts'

/** Membership: etcdserverpb.Cluster (kv.md section 7). */
export function serveCluster(server: MethodRegistry, context: ServiceContext): void {
  const { consensus, settings, auth } = context
  /** A change of the members is no entry that is checked again: what it is judged by must be up to date. */
  const admitChange = (call: CallInfo): Promise<unknown> => auth.admit(call, { kind: 'admin' }, 'confirmed')

  unary(server, '/etcdserverpb.Cluster/MemberList', async (bytes, call) => {
    if (decodeMemberList(bytes).linearizable) {
      checkServing(context, call)
      await readIndex(context, call)
    }
    return encodeMembers(headerOf(context), consensus.members())
  })

  unary(server, '/etcdserverpb.Cluster/MemberAdd', async (bytes, call) => {
    checkServing(context, call)
    await admitChange(call)
    const { peerUrls, learner } = decodeMemberAdd(bytes)
    checkUrls(peerUrls)
    checkUnusedUrls(consensus.members(), peerUrls)
    if (learner && consensus.members().filter((member) => member.learner).length >= settings.learnersMax) {
      fail(statuses.tooManyLearners)
    }
    if (!learner && !maySurvive(consensus.members(), 1)) fail(statuses.notEnoughStarted)
    const member = await consensus.addMember({ peerUrls, learner })
    return encodeMemberAdd(headerOf(context), member, consensus.members())
  })

  unary(server, '/etcdserverpb.Cluster/MemberRemove', async (bytes, call) => {
    checkServing(context, call)
    await admitChange(call)
    const id = decodeMemberId(bytes)
    const member = known(consensus.members(), id)
    const others = consensus.members().filter((each) => each.id !== id)
    if (!member.learner && !maySurvive(others, 0)) fail(statuses.notEnoughStarted)
    await consensus.removeMember(id)
    return encodeMembers(headerOf(context), consensus.members())
  })

  unary(server, '/etcdserverpb.Cluster/MemberPromote', async (bytes, call) => {
    checkServing(context, call)
    await admitChange(call)
    const id = decodeMemberId(bytes)
    if (!known(consensus.members(), id).learner) fail(statuses.notLearner)
    await consensus.promoteMember(id)
    return encodeMembers(headerOf(context), consensus.members())
  })

  unary(server, '/etcdserverpb.Cluster/MemberUpdate', async (bytes, call) => {
    checkServing(context, call)
    await admitChange(call)
    const { id, peerUrls } = decodeMemberUpdate(bytes)
    checkUrls(peerUrls)
    known(consensus.members(), id)
    checkUnusedUrls(
      consensus.members().filter((member) => member.id !== id),
      peerUrls,
    )
    await consensus.updateMember(id, { peerUrls })
    return encodeMembers(headerOf(context), consensus.members())
  })
}

function checkUrls(urls: string[]): void {
  const isGood = (url: string): boolean => /^https?:\/\/[^/]+:\d+\/?$/.test(url) && URL.canParse(url)
  if (urls.length === 0 || !urls.every(isGood)) fail(statuses.urlsInvalid)
}

function checkUnusedUrls(members: readonly Member[], urls: string[]): void {
  if (members.some(({ peerUrls }) => peerUrls.some((url) => urls.includes(url)))) fail(statuses.peerUrlExists)
}

function known(members: readonly Member[], id: bigint): Member {
  return members.find((member) => member.id === id) ?? fail(statuses.memberNotFound)
}

/**
 * Whether the voters that have started are a majority once `unstarted` more are there; a single member may always get a
 * second one.
 */
function maySurvive(members: readonly Member[], unstarted: number): boolean {
  const voters = members.filter(({ learner }) => !learner)
  const started = voters.filter(({ name }) => name !== '').length
  const count = voters.length + unstarted
  if (unstarted === 1 && started === 1 && count === 2) return true
  return started >= Math.floor(count / 2) + 1
}
