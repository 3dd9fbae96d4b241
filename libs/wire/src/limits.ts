/** Every bound of the engine, server and client: what is said of requests and answers holds for a client the other way round. All are per connection unless they say otherwise. */
export type WireLimits = {
  /** Connections of the whole server; more are closed at once. */
  connectionsMax: number
  /** TLS handshakes at the same time, of the whole server; more wait their turn. */
  handshakesMax: number
  handshakeTimeoutMs: number
  /** Open streams (SETTINGS_MAX_CONCURRENT_STREAMS). */
  streamsMax: number
  /** A request message; over it the call ends with `resource exhausted`. */
  messageBytesMax: number
  /** Request messages not complete yet, over all streams. */
  partialBytesMax: number
  /** Answers that wait for the reader; above it new calls are refused with `resource exhausted`. */
  responseBytesMax: number
  /** A stream is `writable` below this many buffered bytes. */
  streamHighWaterBytes: number
  /** What is handed to the socket ahead of the kernel. */
  socketHighWaterBytes: number
  /** Control frames and resets that wait for a reader who does not read; above it the connection is closed. */
  controlBytesMax: number
  /** Decoded header list, counted as in RFC 9113 section 6.5.2. */
  headerListBytesMax: number
  /** A header block as sent, over all CONTINUATION frames. */
  headerBlockBytesMax: number
  /** Receive window of a stream and of the connection. */
  streamWindowBytes: number
  connectionWindowBytes: number
  /** Streams the peer may reset before they were answered: a burst, and how many are forgiven a second. */
  resetsBurst: number
  resetsPerSecond: number
  /** Frames that carry nothing (PING, SETTINGS, PRIORITY, empty DATA): a burst, and how many are forgiven a second. */
  idleFramesBurst: number
  idleFramesPerSecond: number
  /** Pings closer together than this, three times without an answer of ours between, end the connection. */
  pingIntervalMinMs: number
  /** Silence after which we ping, and how long we wait for the answer. */
  keepAliveIntervalMs: number
  keepAliveTimeoutMs: number
}

/** The bounds etcd's own server has where it has any, else what a small cluster needs with room to spare. */
export const defaultLimits: WireLimits = {
  connectionsMax: 10_000,
  handshakesMax: 128,
  handshakeTimeoutMs: 10_000,
  streamsMax: 100_000,
  messageBytesMax: 2 * 1024 * 1024,
  partialBytesMax: 64 * 1024 * 1024,
  responseBytesMax: 64 * 1024 * 1024,
  streamHighWaterBytes: 256 * 1024,
  socketHighWaterBytes: 256 * 1024,
  controlBytesMax: 256 * 1024,
  headerListBytesMax: 64 * 1024,
  headerBlockBytesMax: 64 * 1024,
  streamWindowBytes: 1024 * 1024,
  connectionWindowBytes: 8 * 1024 * 1024,
  resetsBurst: 1000,
  resetsPerSecond: 100,
  idleFramesBurst: 10_000,
  idleFramesPerSecond: 1000,
  pingIntervalMinMs: 5000,
  keepAliveIntervalMs: 2 * 60 * 60 * 1000,
  keepAliveTimeoutMs: 20_000,
}

/**
 * A client's bounds. Servers of the Go implementation measure the line with a ping for each burst of data; one that lost its power
 * does not say goodbye, and etcd allows a ping every five seconds.
 */
export const defaultClientLimits: WireLimits = {
  ...defaultLimits,
  messageBytesMax: 4 * 1024 * 1024,
  idleFramesBurst: 100_000,
  idleFramesPerSecond: 20_000,
  pingIntervalMinMs: 0,
  keepAliveIntervalMs: 10_000,
  keepAliveTimeoutMs: 5000,
}
