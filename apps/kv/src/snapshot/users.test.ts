import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { planDatabase, writeDatabase } from '@kiln/bbolt'
import { type AuthState, MvccStore, pinStore } from '@kiln/mvcc'
import { expect, test } from 'vitest'
import { StoreState } from '../state/state-machine.ts'
import { readContent } from './content.ts'
import { databaseOf } from './database.ts'
import { encodeState } from './restore.ts'
import { openSnapshotFile } from './snapshot-file.ts'

const auth: AuthState = {
  enabled: true,
  revision: 9,
  users: [
    { name: 'root', passwordHash: '$2a$10$abc', noPassword: false, roles: ['root'] },
    { name: 'reader', passwordHash: '', noPassword: true, roles: ['all', 'some'] },
  ],
  roles: [
    { name: 'all', permissions: [{ type: 'read', key: '\0', rangeEnd: '\0' }] },
    { name: 'root', permissions: [] },
    {
      name: 'some',
      permissions: [
        { type: 'readwrite', key: 'a\xff', rangeEnd: '' },
        { type: 'write', key: 'b', rangeEnd: 'c' },
      ],
    },
  ],
}

test('users and roles go into a snapshot and come back with it, so that a restored store is as closed as before', async () => {
  const store = new MvccStore()
  store.put({ key: Buffer.from('k'), value: Buffer.from('v') })
  const content = { alarms: [], members: [], appliedIndex: 5, appliedTerm: 2, auth }
  const buckets = databaseOf({ ...content, store: pinStore(store, 2) })
  const planning = planDatabase(buckets)
  let step = planning.next()
  while (!step.done) step = planning.next()
  const folder = await mkdtemp(join(tmpdir(), 'kiln-users-'))
  try {
    const path = join(folder, 'db')
    await writeFile(path, Buffer.concat([...writeDatabase(buckets, step.value)] as Uint8Array[]))
    const file = await openSnapshotFile(path, { skipHashCheck: true })
    try {
      const found = await readContent(file)
      expect(sorted(found.auth)).toEqual(auth)
      const pieces: Uint8Array[] = []
      for await (const piece of encodeState(found)) pieces.push(piece)
      const state = new StoreState()
      await state.restore(Buffer.concat(pieces))
      expect(sorted(state.auth.exportState())).toEqual(auth)
      expect(state.store.revision).toBe(2)
    } finally {
      await file.close()
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})

function sorted(state: AuthState): AuthState {
  const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1)
  const users = [...state.users].sort((a, b) => -byName(a, b))
  return { ...state, users, roles: [...state.roles].sort(byName) }
}
