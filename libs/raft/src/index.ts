export { decodeMessage, encodeMessage, entryHeaderBytes, readEntry, writeEntry } from './codec.ts'
export { lastIndex, termAt } from './log.ts'
export {
  applyMembershipEntry,
  isMember,
  type Membership,
  type MembershipChange,
  type MembershipEntry,
  noMembers,
} from './membership.ts'
export {
  decodeMembership,
  decodeMembershipEntry,
  encodedMembershipBytes,
  encodeMembershipEntry,
  writeMembership,
} from './membership-codec.ts'
export { majority } from './quorum.ts'
export { appliedTerm, isActive, propose, step, takeEffects } from './raft.ts'
export { createRaft, type Raft, type RaftOptions, type Recovered, type Role } from './state.ts'
export type {
  Effects,
  Entry,
  EntryKind,
  Event,
  HardState,
  Message,
  MessageOf,
  NodeId,
  Persist,
  Proposal,
  ProposalOutcome,
  ProposalRefusal,
  SnapshotMeta,
} from './types.ts'
