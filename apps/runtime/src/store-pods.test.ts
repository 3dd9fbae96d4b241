import type { EtcdClient } from '@kiln/etcd-api'
import { storeKeys } from '@kiln/schemas'
import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import type { PodProblem } from './pod-files.ts'
import { followStorePods } from './store-pods.ts'

const prefix = storeKeys.pods('m1')
const podText = (name: string, spec: object = {}): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { containers: [{ name: 'web', image: 'oci:/x' }], ...spec },
  })

test('pods of the store are told with what is wrong with the others, until it is right or gone', async () => {
  const stopping = new AbortController()
  const told: { pods: string[]; problems: PodProblem[] }[] = []
  const entries = Object.entries({
    good: podText('good'),
    odd: podText('odd', { runtimeClassName: 'x' }),
    other: podText('name'),
    Not_YAML: '{',
    twice: `${podText('twice')}\n---\n${podText('twice')}`,
    yaml: 'apiVersion: v1\nkind: Pod\nmetadata: {name: yaml}\nspec:\n  containers: [{name: web, image: "oci:/x"}]\n',
  }).map(([name, text]) => ({ key: prefix + name, text }))
  const put = (name: string, text: string) => ({ kind: 'put', entry: { key: prefix + name, text } })
  const gone = (name: string) => ({ kind: 'delete', key: prefix + name })
  const store = {
    getPrefix: async () => ({ entries, revision: 1n }),
    watch: async function* () {
      yield { kind: 'events', events: [put('odd', podText('odd')), gone('other')] }
      yield { kind: 'events', events: [gone('Not_YAML'), put('good', '[]')] }
      stopping.abort()
    },
  } as unknown as Pick<EtcdClient, 'getPrefix' | 'watch'>
  await followStorePods({
    store,
    machineId: 'm1',
    log: createLog('test', 'silent'),
    signal: stopping.signal,
    changed: (pods, problems) => told.push({ pods: [...pods.keys()].sort(), problems }),
  })
  expect(told[0]).toEqual({
    pods: ['good', 'yaml'],
    problems: [
      { name: 'odd', message: 'spec.runtimeClassName is not supported by kiln-runtime' },
      { name: 'other', message: 'metadata.name is name, and its key ends in other' },
      { name: 'not-yaml', message: expect.stringMatching(/^Flow map .*must end with a/) },
      { name: 'twice', message: 'holds several pods, where a key has one' },
    ],
  })
  expect(told[1]).toMatchObject({ pods: ['good', 'odd', 'yaml'], problems: [{ name: 'not-yaml' }, {}] })
  expect(told[2]).toMatchObject({ pods: ['odd', 'yaml'], problems: [{ name: 'twice' }, { name: 'good' }] })
})
