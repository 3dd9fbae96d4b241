import type { WireLimits } from '../limits.ts'
import { ConnectionError, errorCode, frameType, setting, windowMax } from './frames.ts'
import type { OutBuffer } from './out-buffer.ts'

const initialWindow = 65_535

/** What holds until the peer says otherwise (RFC 9113, section 6.5.2). */
export const defaultPeerSettings = { streamWindow: initialWindow }

/** The settings of a peer that matter to us. */
export type PeerSettings = {
  headerTableBytes?: number
  streamWindow?: number
  frameBytesMax?: number
  streamsMax?: number
}

/** Reads a SETTINGS payload; later values of the same setting win. */
export function readPeerSettings(bytes: Buffer, start: number, end: number): PeerSettings {
  if ((end - start) % 6 !== 0) throw new ConnectionError(errorCode.frameSizeError, 'SETTINGS of a wrong size')
  const settings: PeerSettings = {}
  for (let at = start; at < end; at += 6) {
    const value = bytes.readUInt32BE(at + 2)
    switch (bytes.readUInt16BE(at)) {
      case setting.headerTableSize:
        settings.headerTableBytes = value
        break
      case setting.initialWindowSize:
        if (value > windowMax)
          throw new ConnectionError(errorCode.flowControlError, 'initial window too large')
        settings.streamWindow = value
        break
      case setting.maxFrameSize:
        if (value < 16_384 || value > 16_777_215)
          throw new ConnectionError(errorCode.protocolError, 'invalid maximum frame size')
        settings.frameBytesMax = Math.min(value, 65_536)
        break
      case setting.maxConcurrentStreams:
        settings.streamsMax = value
        break
      case setting.enablePush:
        if (value > 1) throw new ConnectionError(errorCode.protocolError, 'invalid ENABLE_PUSH')
        break
    }
  }
  return settings
}

/**
 * A server's or client's side of the preface: SETTINGS, and the connection window opened to what we allow. A client takes no
 * pushed streams.
 */
export function writeOurSettings(out: OutBuffer, limits: WireLimits, end: 'server' | 'client'): void {
  const ours = [
    end === 'server' ? [setting.maxConcurrentStreams, limits.streamsMax] : [setting.enablePush, 0],
    [setting.initialWindowSize, limits.streamWindowBytes],
    [setting.maxHeaderListSize, limits.headerListBytesMax],
  ] as [id: number, value: number][]
  out.frameHeader(6 * ours.length, frameType.settings, 0, 0)
  for (const [id, value] of ours) {
    out.byte(0)
    out.byte(id)
    out.uint32(value)
  }
  out.frameHeader(4, frameType.windowUpdate, 0, 0)
  out.uint32(limits.connectionWindowBytes - initialWindow)
}
