import type { PodContainer } from '@kiln/schemas'
import type { PodRecord } from './pod-record.ts'
import { type ContainerState, hasSucceeded } from './restart-policy.ts'

const stateOf = (record: PodRecord, { name }: PodContainer): ContainerState => record.containers[name]!.state

/** The containers that may be started now: one that runs before the others, until all of those are done. Pure. */
export function whoseTurn(record: PodRecord): PodContainer[] {
  const { initContainers, containers } = record.manifest.spec
  const first = initContainers.find((each) => !hasSucceeded(stateOf(record, each)))
  return first ? [first] : containers
}

/** What must run before the others once more, when their sandbox is gone: what it made may have gone with it. Pure. */
export function initToRepeat(record: PodRecord): PodContainer[] {
  const { initContainers, containers } = record.manifest.spec
  const waits = containers.some((each) => stateOf(record, each).kind === 'waiting')
  return waits && initContainers.every((each) => hasSucceeded(stateOf(record, each))) ? initContainers : []
}

/** Nothing will run any more: all containers have ended for good, or one that had to succeed before them has not. Pure. */
export function isOver(record: PodRecord): boolean {
  const { initContainers, containers } = record.manifest.spec
  const ended = (each: PodContainer): boolean => stateOf(record, each).kind === 'exited'
  return (
    containers.every(ended) ||
    initContainers.some((each) => ended(each) && !hasSucceeded(stateOf(record, each)))
  )
}
