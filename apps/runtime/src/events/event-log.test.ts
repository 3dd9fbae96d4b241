import { appendFileSync, mkdtempSync, readFileSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { newRecord } from '../pod-record.ts'
import { machine, manifest, pass } from '../testing/machine.ts'
import { type EventLog, openEventLog, type PodEvent } from './event-log.ts'

const newFolder = (): string => mkdtempSync(join(tmpdir(), 'kiln-events-'))

const open = (stateDir: string, fileBytesMax = 1 << 20): Promise<EventLog> =>
  openEventLog({ stateDir, fileBytesMax, now: () => 0, log: createLog('test', 'silent') })

const event = (pod: string) => ({
  pod,
  uuid: `u-${pod}`,
  reason: 'Started' as const,
  message: 'x'.repeat(200),
})

test('events are there after a restart and a torn line, numbered on, and found by pod', async () => {
  const folder = newFolder()
  const first = await open(folder)
  first.add(event('one'))
  first.add(event('two'))
  await first.close()
  appendFileSync(join(folder, 'events/log'), '{"formatVersion":1,"seq')
  const second = await open(folder)
  const heard: PodEvent[] = []
  const stop = second.follow((each) => heard.push(each))
  second.add(event('one'))
  stop()
  second.add(event('three'))
  await second.close()
  expect(heard.map(({ sequence }) => sequence)).toEqual([3])
  const third = await open(folder)
  expect(third.list().map(({ pod, sequence }) => `${pod} ${sequence}`)).toEqual([
    'one 1',
    'two 2',
    'one 3',
    'three 4',
  ])
  expect(third.list({ pod: 'u-one', after: 1 }).map(({ sequence }) => sequence)).toEqual([3])
})

test('the log is bounded on the disk and in memory, and keeps the newest', async () => {
  const folder = newFolder()
  const log = await open(folder, 8192)
  for (let count = 0; count < 2500; count++) {
    log.add(event('one'))
    if (count % 10 === 0) await new Promise(setImmediate)
  }
  expect(log.list()).toHaveLength(2000)
  await log.close()
  for (const name of ['log', 'log.1'])
    expect(statSync(join(folder, 'events', name)).size).toBeLessThan(1 << 20)
  expect(readFileSync(join(folder, 'events/log'), 'utf8')).toContain('"sequence":2500,')
  expect((await open(folder)).list().at(-1)?.sequence).toBe(2500)
})

test('a pod tells what happens to it and why, with its back-off', async () => {
  const host = machine()
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  host.end('web', host.exit(3))
  pod.wake()
  await pass(host.clock, 100)
  host.end('web', { ...host.exit(137, 9), oomKilled: true })
  pod.wake()
  await pass(host.clock, 100)
  await pod.stop(0)
  await pass(host.clock, 3000)
  pod.remove('a file has it no more')
  await pass(host.clock, 3000)
  expect(host.events()).toEqual([
    'ImagePulled web: image boot://hello.tar is there',
    'NetworkAttached: has 10.88.11.2',
    'Started web: started, attempt 1',
    'Exited web: ended with code 3',
    'BackOff web: starts again at once',
    'ImagePulled web: image boot://hello.tar is there',
    'Started web: started, attempt 2',
    'OOMKilled web: was killed as it used up its memory',
    'BackOff web: starts again in 1 s',
    'Stopping: somebody asked the runtime to stop it',
    'Stopping: a file has it no more',
    'Removed: is gone with its files',
  ])
})
