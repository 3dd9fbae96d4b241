import { expect, test } from 'vitest'
import { daemonMemory } from './pod-service.ts'

test("the daemons' memory is read from the process list", () => {
  const list = [
    '   980 /usr/lib/systemd/systemd',
    ' 88064 /usr/bin/node /usr/lib/kiln/kiln-kv.mjs --name',
    '  2048 -bash',
  ].join('\n')
  expect([...daemonMemory(list)]).toEqual([['kiln-kv', 86]])
})
