import { hashSlices, type MvccStore, type Outcome, type StoreHash } from '@kiln/mvcc'

/** The hash of a store up to a revision, with pauses in which other work runs. */
export async function hashStore(store: MvccStore, revision: number): Promise<Outcome<StoreHash>> {
  const slices = hashSlices(store, revision)
  for (;;) {
    const step = slices.next()
    if (step.done) return step.value
    await new Promise((resume) => setImmediate(resume))
  }
}
