import { lstatSync } from 'node:fs'
import type { IgnitionUser } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { findUser } from './accounts.ts'
import { tellJournal } from './journal-message.ts'
import type { Run } from './run.ts'
import type { TargetRoot } from './target-root.ts'

/** "ssh keys were written", as Ignition marks it in the journal. */
const keysWritten = '225067b87bbd4a0cb6ab151f82fa364b'

/**
 * A user's keys: in a fragment of their own, which the image's sshd reads beside the user's own file, or in
 * authorized_keys itself where the options say so. All of it belongs to the user.
 */
export async function writeKeys(
  user: IgnitionUser,
  passwd: string,
  target: TargetRoot,
  run: Run,
): Promise<void> {
  const keys = user.sshAuthorizedKeys ?? []
  if (keys.length === 0 || user.shouldExist === false) return
  const account = findUser(passwd, user.name)
  if (!account)
    throw new Fault('ACCOUNTS_REFUSED', `ssh keys are given for user ${user.name}, who does not exist`)
  const owner = { uid: account.uid, gid: account.gid }
  const folder = `${account.home.replace(/\/+$/, '')}/.ssh`
  const fragment = run.options.keysFragment
  const folders = [account.home, folder, ...(fragment ? [`${folder}/authorized_keys.d`] : [])]
  for (const each of folders) {
    if (!lstatSync(target.place(each), { throwIfNoEntry: false })) target.folder(each, 0o700, owner)
  }
  const path = fragment ? `${folder}/authorized_keys.d/ignition` : `${folder}/authorized_keys`
  const text = keys.map((key) => `${key.replace(/\n+$/, '')}\n`).join('')
  target.write(path, text, 0o600, owner)
  await tellJournal(run, {
    MESSAGE: `wrote ssh authorized keys file for user: ${user.name}`,
    MESSAGE_ID: keysWritten,
    IGNITION_USER_NAME: user.name,
    IGNITION_PATH: path,
  })
}
