/** What is wrong on the way from one node to another. */
export type LinkFault = { cut: true } | { cut?: false; delayMs?: number; lossPercent?: number }

export type LinkFaultRule = { from: string; to: string; fault: LinkFault }

/** Any node, in a rule. */
export const everyNode = '*'

/** Rules for both directions between two nodes. */
export const bothWays = (a: string, b: string, fault: LinkFault): LinkFaultRule[] => [
  { from: a, to: b, fault },
  { from: b, to: a, fault },
]

/** Cuts a node off from all others. */
export const isolation = (node: string): LinkFaultRule[] => bothWays(node, everyNode, { cut: true })

export type Passage = { kind: 'forward' } | { kind: 'drop' } | { kind: 'delay'; ms: number }

/** What becomes of one frame. Of several rules that match, a cut wins, delays add up and losses are independent. */
export function passage(rules: LinkFaultRule[], from: string, to: string, random: () => number): Passage {
  let delayMs = 0
  for (const rule of rules) {
    if (rule.from !== everyNode && rule.from !== from) continue
    if (rule.to !== everyNode && rule.to !== to) continue
    if (rule.fault.cut) return { kind: 'drop' }
    if (rule.fault.lossPercent && random() * 100 < rule.fault.lossPercent) return { kind: 'drop' }
    delayMs += rule.fault.delayMs ?? 0
  }
  return delayMs > 0 ? { kind: 'delay', ms: delayMs } : { kind: 'forward' }
}
