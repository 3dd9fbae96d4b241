import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { keepMessages, tellJournal } from './journal-message.ts'
import { simulatedRun } from './simulated-run.ts'
import { openTargetRoot } from './target-root.ts'

const fields = { MESSAGE: 'fetched\nit', MESSAGE_ID: '57124006b5c94805b77ce473e92a8aeb' }

test('an install without a journal keeps its messages for that of the machine, each once', async () => {
  const { run, folder, root } = simulatedRun({ flags: ['--image', 'usr.img'] })
  const nowhere = join(folder, 'no-socket')
  await tellJournal(run, fields, nowhere)
  await tellJournal(run, { ...fields, IGNITION_USER_NAME: 'core' }, nowhere)
  const target = openTargetRoot(run)
  keepMessages(target, run.untold)
  // A run that a power cut ended left some.
  keepMessages(target, run.untold)
  const messages = join(root, 'var/lib/kiln/ignition-messages')
  expect(readdirSync(messages).sort()).toEqual(['0000', '0001'])
  expect(statSync(join(messages, '0000')).mode & 0o777).toBe(0o600)
  expect(readFileSync(join(messages, '0000'), 'utf8')).toBe(
    [
      'PRIORITY=6',
      'SYSLOG_IDENTIFIER=ignition',
      'MESSAGE=fetched it',
      'MESSAGE_ID=57124006b5c94805b77ce473e92a8aeb',
      'SYSLOG_TIMESTAMP=2026-01-02T03:04:05.000Z',
      '',
    ].join('\n'),
  )
  expect(readFileSync(join(messages, '0001'), 'utf8')).toContain('IGNITION_USER_NAME=core\n')
})

test('a journal that is there is told at once; one that refuses is a warning', async () => {
  const { run, folder, said } = simulatedRun({ flags: ['--image', 'usr.img'] })
  const socket = join(folder, 'socket')
  writeFileSync(socket, '')
  const told: unknown[] = []
  run.command = async (name, args, options) => {
    told.push([name, ...args, options?.input])
    if (told.length > 1) throw new Fault('COMMAND_FAILED', 'logger failed')
    return { code: 0, stdout: '' }
  }
  await tellJournal(run, fields, socket)
  await tellJournal(run, fields, socket)
  expect(told[0]).toEqual([
    'logger',
    '--journald',
    `PRIORITY=6\nSYSLOG_IDENTIFIER=ignition\nMESSAGE=fetched it\nMESSAGE_ID=${fields.MESSAGE_ID}\n`,
  ])
  expect(run.untold).toEqual([])
  expect(said.join()).toContain('the journal did not take a message: logger failed')
})

test('where nothing is installed and no journal is, nobody is told', async () => {
  for (const flags of [[], ['--image', 'usr.img', '--disk-image', 'disk.raw']]) {
    const { run, folder, commands } = simulatedRun({ flags })
    await tellJournal(run, fields, join(folder, 'no-socket'))
    expect([run.untold, commands]).toEqual([[], []])
  }
})
