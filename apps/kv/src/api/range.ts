import { type RangeRequest, ValueFetch } from '@kiln/mvcc'
import type { CallInfo } from '@kiln/wire'
import { afterSlice, nextTurn } from '../state/slices.ts'
import { acceptedValue, headerOf, type ServiceContext } from './context.ts'
import { encodePairs, encodeRange } from './responses.ts'

/**
 * Answers a range read without holding up the event loop, however large it is: pairs are found and encoded a slice in a turn.
 * Parts of a protobuf message one after the other are the message, so the last part has the header and the count.
 */
export async function rangeInSlices(
  context: ServiceContext,
  request: RangeRequest,
  call: CallInfo,
): Promise<Uint8Array> {
  const slices = context.state.store.rangeSlices(request)
  const parts: Uint8Array[] = []
  try {
    for (;;) {
      const step = slices.next()
      if (step.done) {
        const response = acceptedValue(step.value)
        const last = encodeRange(headerOf(context, response.revision), response)
        if (parts.length === 0) return last
        const all = await joined([...parts, last])
        context.measures.slowCalls.note(call, 'collected', context.clock.now())
        return all
      }
      const fetch = step.value instanceof ValueFetch ? step.value : undefined
      if (!(step.value instanceof ValueFetch) && step.value.length > 0) parts.push(encodePairs(step.value))
      await afterSlice(context.state.values, fetch)
    }
  } finally {
    slices.return(undefined as never)
  }
}

/** Bytes copied in a turn. */
const copyBytes = 4 << 20

/** Also the copying of a large answer takes several turns. */
async function joined(parts: readonly Uint8Array[]): Promise<Uint8Array> {
  const all = Buffer.allocUnsafeSlow(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  let copied = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
    copied += part.length
    if (copied < copyBytes) continue
    copied = 0
    await nextTurn()
  }
  return all
}
