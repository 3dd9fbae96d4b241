import { Fault } from '@kiln/service'

type Waiting = { deadline: number; settle: (body: Uint8Array, error: Fault | undefined) => void }

/** Requests to the leader that wait for their answer. */
export class Requests {
  #id: number
  #waiting = new Map<number, Waiting>()

  /** `firstId` is drawn at random: a late answer to an earlier run of this member is not one to us. */
  constructor(firstId: number) {
    this.#id = firstId
  }

  add(waiting: Waiting): number {
    this.#waiting.set(++this.#id, waiting)
    return this.#id
  }

  count(): number {
    return this.#waiting.size
  }

  answered(id: number, ok: boolean, body: Uint8Array): void {
    const waiting = this.#waiting.get(id)
    if (waiting === undefined) return
    this.#waiting.delete(id)
    if (ok) waiting.settle(body, undefined)
    else waiting.settle(body, new Fault(new TextDecoder().decode(body), 'the leader refused the request'))
  }

  expire(now: number): void {
    for (const [id, waiting] of this.#waiting) {
      if (waiting.deadline > now) continue
      this.#waiting.delete(id)
      waiting.settle(new Uint8Array(0), new Fault('STORE_TIMEOUT', 'the leader did not answer in time'))
    }
  }

  failAll(fault: Fault): void {
    for (const waiting of this.#waiting.values()) waiting.settle(new Uint8Array(0), fault)
    this.#waiting.clear()
  }
}
