import { type Membership, voterGroups } from './membership.ts'
import type { NodeId } from './types.ts'

/** How many of `count` voters are a majority. */
export function majority(count: number): number {
  return Math.floor(count / 2) + 1
}

/** The greatest value that a majority of voters has reached, of both sets where there are two; 0 without voters. */
export function quorumValue(membership: Membership, reached: (id: NodeId) => number): number {
  return Math.min(...voterGroups(membership).map((voters) => groupValue(voters, reached)))
}

function groupValue(voters: readonly NodeId[], reached: (id: NodeId) => number): number {
  if (voters.length === 0) return 0
  const values = voters.map(reached).sort((a, b) => b - a)
  return values[majority(voters.length) - 1] ?? 0
}

type Outcome = 'won' | 'lost' | 'open'

/** Whether an election is decided by the votes that came in. */
export function voteOutcome(membership: Membership, votes: ReadonlyMap<NodeId, boolean>): Outcome {
  const outcomes = voterGroups(membership).map((voters) => groupOutcome(voters, votes))
  if (outcomes.includes('lost')) return 'lost'
  return outcomes.includes('open') ? 'open' : 'won'
}

function groupOutcome(voters: readonly NodeId[], votes: ReadonlyMap<NodeId, boolean>): Outcome {
  let granted = 0
  let refused = 0
  for (const id of voters) {
    const vote = votes.get(id)
    if (vote === true) granted++
    else if (vote === false) refused++
  }
  const needed = majority(voters.length)
  if (granted >= needed && voters.length > 0) return 'won'
  return voters.length - refused < needed ? 'lost' : 'open'
}
