import type { Entry, HardState } from '@kiln/raft'
import { Fault } from '@kiln/service'
import { blockBytes, endOfTraces, generationOf, hasLaterBatch, readBatch, type Stamp } from './block.ts'
import { decodeRecords } from './records.ts'
import { decodeSegmentHeader, type SegmentHeader, walFormatVersion } from './segment.ts'

/** What the files of the log say. */
export type RecoveredLog = {
  hardState: HardState
  /** The log holds entries after this one. */
  base: { index: number; term: number }
  entries: Entry[]
  /** Where and with which stamp the next batch goes; undefined for an empty folder. */
  tail: Tail | undefined
  /** Files in use, oldest first, with the highest index of an entry in each. */
  live: { name: string; generation: number; maxIndex: number }[]
  /** Files that may be taken into use. */
  free: string[]
}

export type Tail = {
  name: string
  stamp: Stamp
  offset: number
  /** - `clean`: it ends with a whole batch. - `torn`: a batch that was never acknowledged was cut off.
   * - `damaged`: the last batch is wrong though all of it was written: acknowledged entries may be missing. */
  state: 'clean' | 'torn' | 'damaged'
  /** Up to here the file must be blanked before it is written on. */
  blankUntil: number
}

/** Reads the log back from whole segment files. Throws a Fault for whatever cannot have come from a crash alone. */
export function recoverLog(
  files: readonly { name: string; bytes: Uint8Array }[],
  owner: { clusterId: bigint; memberId: bigint },
): RecoveredLog {
  const found: { name: string; bytes: Uint8Array; header: SegmentHeader }[] = []
  const free: string[] = []
  const unreadable: { name: string; bytes: Uint8Array }[] = []
  for (const file of files) {
    const read = decodeSegmentHeader(file.bytes.subarray(0, blockBytes))
    switch (read.kind) {
      case 'header':
        checkOwner(file.name, read.header, owner)
        found.push({ ...file, header: read.header })
        break
      case 'blank':
        free.push(file.name)
        break
      case 'unreadable':
        unreadable.push(file)
        break
      case 'foreign':
        throw new Fault(
          'STORE_FORMAT_UNKNOWN',
          `log segment ${file.name} has format ${read.version}, this version knows ${walFormatVersion}`,
        )
    }
  }
  found.sort((a, b) => a.header.generation - b.header.generation)
  const newest = found[found.length - 1]?.header.generation ?? 0
  for (const file of unreadable) {
    // A header is written before anything else: one that was never finished has nothing of its generation behind it.
    const generation = generationOf(file.bytes, blockBytes)
    if (generation !== undefined && generation > newest) throw corrupt(file.name, 'its header is damaged')
    free.push(file.name)
  }
  let oldest = found.length - 1
  while (oldest > 0 && found[oldest - 1]!.header.generation === found[oldest]!.header.generation - 1) oldest--
  free.push(...found.slice(0, Math.max(0, oldest)).map((file) => file.name))
  return replay(found.slice(Math.max(0, oldest)), free)
}

function replay(
  segments: readonly { name: string; bytes: Uint8Array; header: SegmentHeader }[],
  free: string[],
): RecoveredLog {
  const first = segments[0]?.header
  const log: RecoveredLog = {
    hardState: first?.hardState ?? { term: 0, vote: 0n, commit: 0 },
    base: { index: first?.lastIndex ?? 0, term: first?.lastTerm ?? 0 },
    entries: [],
    tail: undefined,
    live: [],
    free,
  }
  segments.forEach((segment, at) => {
    const { header, bytes, name } = segment
    const previous = log.tail?.stamp
    if (previous && (previous.batch !== header.firstBatch || previous.previousCrc !== header.previousCrc)) {
      throw corrupt(segments[at - 1]!.name, `it ends with batch ${previous.batch - 1}, which is not its last`)
    }
    const stamp: Stamp = {
      generation: header.generation,
      batch: header.firstBatch,
      previousCrc: header.previousCrc,
    }
    const live = { name, generation: header.generation, maxIndex: 0 }
    log.live.push(live)
    let offset = blockBytes
    for (;;) {
      const read = readBatch(bytes, offset, stamp)
      if (read.kind === 'batch') {
        replayBatch(log, live, name, read.payload)
        stamp.batch++
        stamp.previousCrc = read.crc
        offset += read.blocks * blockBytes
        continue
      }
      if (hasLaterBatch(bytes, offset, stamp)) {
        throw corrupt(name, `batch ${stamp.batch} is damaged and good ones follow it`)
      }
      const blankUntil = endOfTraces(bytes, offset, stamp.batch)
      const state = read.kind === 'damaged' ? 'damaged' : blankUntil > offset ? 'torn' : 'clean'
      log.tail = { name, stamp, offset, state, blankUntil }
      return
    }
  })
  return log
}

function replayBatch(log: RecoveredLog, live: { maxIndex: number }, name: string, payload: Uint8Array): void {
  for (const record of decodeRecords(payload)) {
    switch (record.kind) {
      case 'state':
        log.hardState = record.state
        break
      case 'origin':
        log.base = { index: record.index, term: record.term }
        log.entries = []
        break
      case 'entry': {
        const { entry } = record
        const place = entry.index - log.base.index - 1
        if (place > log.entries.length) {
          throw corrupt(
            name,
            `entry ${entry.index} does not follow entry ${log.base.index + log.entries.length}`,
          )
        }
        if (place < 0) {
          // A snapshot covers it, but it may replace what an earlier segment had there.
          log.entries.length = 0
          if (place === -1) log.base.term = entry.term
          break
        }
        log.entries.length = place
        log.entries.push(entry)
        live.maxIndex = Math.max(live.maxIndex, entry.index)
        break
      }
    }
  }
}

function checkOwner(
  name: string,
  header: SegmentHeader,
  owner: { clusterId: bigint; memberId: bigint },
): void {
  if (header.clusterId === owner.clusterId && header.memberId === owner.memberId) return
  throw new Fault(
    'STORE_WRONG_MEMBER',
    `log segment ${name} belongs to member ${header.memberId.toString(16)} of cluster ` +
      `${header.clusterId.toString(16)}, not to member ${owner.memberId.toString(16)} of ${owner.clusterId.toString(16)}`,
  )
}

function corrupt(name: string, what: string): Fault {
  return new Fault('STORE_WAL_CORRUPT', `log segment ${name} is corrupt: ${what}`, {
    remedy: 'remove this member from the cluster and add it again with an empty data directory',
  })
}
