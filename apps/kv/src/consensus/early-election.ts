import type { Role } from '@kiln/raft'

/** Ticks after its start in which a member that has heard of no leader may ask for an election early. */
export const earlyElectionTicks = 40
/** How likely it does so in each: seldom two at once. */
const chance = 0.3

/**
 * When a whole cluster starts nobody leads, and waiting for the election timeout would only delay it. Pre-votes disturb
 * nobody: they change no term, and are refused where a leader is heard (dissertation, section 9.6).
 */
export function electsEarly(role: Role, ticks: number, random: number): boolean {
  return ticks > 1 && random < chance && (role === 'follower' || role === 'pre-candidate')
}
