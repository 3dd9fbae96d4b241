import { hashSlices, type Outcome, type StoreHash } from '@kiln/mvcc'
import { runSlices } from './slices.ts'
import type { StoreState } from './state-machine.ts'

/** The hash of a store up to a revision, with pauses in which other work runs. */
export const hashStore = (state: StoreState, revision: number): Promise<Outcome<StoreHash>> =>
  runSlices(hashSlices(state.store, revision), state.values)
