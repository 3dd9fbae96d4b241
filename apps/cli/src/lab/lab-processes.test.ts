import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identifyProcess, isAlive } from '@kiln/vm'
import { expect, test } from 'vitest'
import { down } from '../commands/down.ts'
import { upEmbedded } from '../commands/up-embedded.ts'
import { exitCodeOf } from '../exit-code.ts'
import { endGroup } from './lab-processes.ts'
import { createStateFolder, stateFolder } from './state-folder.ts'

test('ending an owner that has recorded nothing yet ends what it started as well', async () => {
  const owner = spawn('/bin/sh', ['-c', 'sleep 300 & echo $!; wait'], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const [line] = (await once(owner.stdout, 'data')) as [Buffer]
  const started = identifyProcess(Number(line.toString()))
  const ended = once(owner, 'exit')
  endGroup(owner.pid)
  await ended
  await expect.poll(() => started && isAlive(started)).toBe(false)
})

test('an embedded cluster of no or too many members is refused before anything is made', async () => {
  const state = join(tmpdir(), `kiln-nodes-${process.pid}`)
  const context = {
    environment: {},
    signal: new AbortController().signal,
    live: false,
    print: () => {},
    note: () => {},
  }
  for (const nodes of [0, 6]) {
    const refused = await upEmbedded({ nodes, keep: false, json: false, state }, context).catch(
      (error: unknown) => error,
    )
    expect(exitCodeOf(refused)).toBe(2)
  }
  expect(existsSync(state)).toBe(false)
})

test('a cluster whose record of processes is damaged can still be removed', async () => {
  const state = mkdtempSync(join(tmpdir(), 'kiln-damaged-'))
  createStateFolder(stateFolder(state, {}))
  writeFileSync(join(state, 'processes.json'), '{')
  const signal = new AbortController().signal
  const context = { environment: {}, signal, live: false, print: () => {}, note: () => {} }
  await down({ state, keep: false }, context)
  expect(existsSync(state)).toBe(false)
})
