import { Fault } from '@kiln/service'

/** A bound was reached; nothing happened. */
export const tooMany = (what: string): Fault =>
  new Fault('STORE_TOO_MANY_REQUESTS', `there are too many ${what}`)
export const stoppedFault = (): Fault => new Fault('STORE_STOPPED', 'this member is stopping')
export const removedFault = (): Fault =>
  new Fault('STORE_MEMBER_REMOVED', 'this member was removed from the cluster', {
    remedy: 'empty its data directory and add it again as a new member',
  })

/**
 * What was under way when a member had to end may have happened or not, whatever it ended for: a full disk alone, for one, says that
 * nothing did.
 */
export const cannotGoOnFault = (cause: Fault): Fault =>
  new Fault('STORE_STOPPED', 'this member cannot go on', { cause })

export const tooLargeFault = (bytes: number, largest: number): Fault =>
  new Fault('STORE_REQUEST_TOO_LARGE', `a proposal of ${bytes} bytes is above the limit of ${largest}`)
