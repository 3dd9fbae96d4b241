import { AuthBook, type AuthState } from '@kiln/mvcc'

const untouched = new AuthBook().exportState()

/** The state of auth for a snapshot: length u32, JSON. Nothing while there never was a user or role, unless `always`. */
export function encodeAuthState(state: AuthState, always: boolean): Buffer {
  const isUntouched = state.revision === untouched.revision && state.users.length + state.roles.length === 0
  if (isUntouched && !always) return Buffer.alloc(0)
  const json = Buffer.from(JSON.stringify(state))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  return Buffer.concat([length, json])
}

/** What is at `at`, and how long it is; `undefined` is a snapshot without it. */
export function decodeAuthState(bytes: Buffer, at: number | undefined): { state: AuthState; bytes: number } {
  if (at === undefined) return { state: untouched, bytes: 0 }
  const end = at + 4 + bytes.readUInt32LE(at)
  return { state: JSON.parse(bytes.toString('utf8', at + 4, end)) as AuthState, bytes: end - at }
}
