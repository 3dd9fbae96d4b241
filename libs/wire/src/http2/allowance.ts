import type { WireLimits } from '../limits.ts'
import { ConnectionError, errorCode } from './frames.ts'
import { TokenBucket } from './token-bucket.ts'

/** What a peer may do that costs us and gets nobody further: beyond it the connection ends (RFC 9113, section 10.5). */
export class Allowance {
  private readonly resets: TokenBucket
  private readonly idleFrames: TokenBucket

  constructor(limits: WireLimits) {
    this.resets = new TokenBucket(limits.resetsBurst, limits.resetsPerSecond)
    this.idleFrames = new TokenBucket(limits.idleFramesBurst, limits.idleFramesPerSecond)
  }

  reset(nowMs: number): void {
    if (!this.resets.take(nowMs)) throw new ConnectionError(errorCode.enhanceYourCalm, 'too many resets')
  }

  idleFrame(nowMs: number, count: number): void {
    if (!this.idleFrames.take(nowMs, count))
      throw new ConnectionError(errorCode.enhanceYourCalm, 'too many frames that carry nothing')
  }
}

/** What a stream may always have waiting. */
const streamShareMinBytes = 4096

/**
 * What a stream may have waiting: less, the more others have, so that streams nobody reads keep a bounded part of the memory and
 * leave their neighbours on the connection enough to go on.
 */
export function streamShareBytes(limits: WireLimits, queuedBytes: number): number {
  const share = (limits.responseBytesMax - queuedBytes) / 16
  return Math.min(limits.streamHighWaterBytes, Math.max(share, streamShareMinBytes))
}
