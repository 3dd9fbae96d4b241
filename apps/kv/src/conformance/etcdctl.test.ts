import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { fetchEtcdctl } from '../testing/etcdctl.ts'
import { runEtcdctlConformance, scriptDefault } from './etcdctl.ts'

/** Why this machine cannot run the script, if it cannot. */
async function obstacle(): Promise<string | undefined> {
  if (!existsSync(scriptDefault)) return `there is no ${scriptDefault}`
  return fetchEtcdctl().then(
    () => undefined,
    (error: unknown) => `etcdctl cannot be fetched: ${(error as Error).message.split('\n')[0]}`,
  )
}

test('stock etcdctl finds what it finds on a real etcd', { timeout: 240_000 }, async (context) => {
  const reason = await obstacle()
  if (reason) {
    process.stdout.write(`skipped: ${reason}\n`)
    context.skip(reason)
  }
  const failures: string[] = []
  // The part `conformance` of `kiln test` runs all sections; here is what shows that the runner works.
  const counts = await runEtcdctlConformance({
    runs: [{ title: 'keys', only: '^(get|del|txn)$', members: 1, tls: 'h2' }],
    print: (line) => {
      if (line.startsWith('FAIL')) failures.push(line)
    },
  })
  expect(failures).toEqual([])
  expect(counts.passed).toBeGreaterThan(50)
})
