import { type Policy, ruleFor, type StoredImage, trustedKeys } from '@kiln/oci'
import { Fault } from '@kiln/service'

/** What a policy asks of an image that is to be fetched: nothing, or a signature by one of these keys. */
export type Requirement = { keys: ReturnType<typeof trustedKeys>; signedIdentity: 'repository' | 'any' }

/** The requirement for an image as a pod names it; a Fault where no fetching can fulfil it. */
export function requirementFor(policy: Policy, reference: string): Requirement | undefined {
  const { rule, prefix, isLocal } = ruleFor(policy, reference)
  const which = prefix === undefined ? 'the default rule' : `the rule for ${prefix}`
  switch (rule.policy) {
    case 'accept':
      return undefined
    case 'refuse':
      throw new Fault('IMAGE_REFUSED', `${which} of the image policy refuses ${reference}`)
    case 'signed':
      if (isLocal)
        throw new Fault(
          'IMAGE_NOT_SIGNED',
          `${which} of the image policy wants a signature, and ${reference} is of a kind that has none`,
          { remedy: `kiln-runtime image trust set --prefix ${reference.split(':')[0]}: accept` },
        )
      return { keys: trustedKeys(rule), signedIdentity: rule.signedIdentity }
  }
}

/**
 * Whether an image that is here may be used under the policy of now: what was signed by a key that is trusted still, what needs no
 * signature, and what an administrator took without a check.
 */
export function isAdmitted(policy: Policy, { reference, admittedBy }: StoredImage): boolean {
  if (admittedBy?.kind === 'insecure-options') return true
  const { rule } = ruleFor(policy, reference)
  const trusted = trustedKeys(rule).map(({ fingerprint }) => fingerprint)
  return rule.policy === 'accept' || (admittedBy?.keys ?? []).some((key) => trusted.includes(key))
}
