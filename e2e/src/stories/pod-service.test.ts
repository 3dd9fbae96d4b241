import { expect, test } from 'vitest'
import { daemonMemory } from './pod-service.ts'

test('resident and proportional memory of the daemons is read from the process list', () => {
  const list =
    'Rss: 87040 kB Pss: 61440 kB /usr/bin/node /usr/lib/kiln/kiln-kv.mjs\r\n' +
    'grep: /proc/77/smaps_rollup: No such file or directory\r\n' +
    'Rss: 79872 kB Pss: 40960 kB /usr/bin/node --v8-pool-size=0 /usr/lib/kiln/kiln-update.mjs\r\n' +
    'Rss: 71680 kB Pss: 35840 kB /usr/bin/node /usr/bin/../lib/kiln/kiln-oci.mjs planner\r\n'
  expect(daemonMemory(list)).toEqual([
    { name: 'kiln-kv', rssMiB: 85, pssMiB: 60 },
    { name: 'kiln-update', rssMiB: 78, pssMiB: 40 },
    { name: 'kiln-oci', rssMiB: 70, pssMiB: 35 },
  ])
  expect(daemonMemory('')).toEqual([])
})
