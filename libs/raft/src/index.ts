export { decodeMessage, encodeMessage, entryHeaderBytes, readEntry, writeEntry } from './codec.ts'
export { lastIndex, termAt } from './log.ts'
export {
  applyChange,
  decodeChange,
  encodeChange,
  isMember,
  type Membership,
  type MembershipChange,
  noMembers,
} from './membership.ts'
export { decodeMembership, encodedMembershipBytes, writeMembership } from './membership-codec.ts'
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
