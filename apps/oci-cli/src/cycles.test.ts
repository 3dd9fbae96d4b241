import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { leftovers, prepare, unable } from './testing/bundle.ts'
import { startPlanner } from './testing/planner-process.ts'

if (unable) console.log(`skipped: containers of kiln-oci that come and go: ${unable}`)

/** Few in every test run; KILN_CYCLES=1000 is the long one. */
const cycles = Number(process.env['KILN_CYCLES'] ?? 25)

const endings: (() => unknown)[] = []
afterAll(async () => {
  for (const end of endings.splice(0)) await end()
})

/** What a leak would show in: all mounts, the groups of cgroup v1 or v2, and the planner itself. */
function counts(planner: number) {
  const status = readFileSync(`/proc/${planner}/status`, 'utf8')
  return {
    mounts: readFileSync('/proc/self/mountinfo', 'utf8').split('\n').length,
    descriptors: readdirSync(`/proc/${planner}/fd`).length,
    threads: Number(/^Threads:\s+(\d+)/m.exec(status)?.[1]),
    rssMiB: Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024,
  }
}

test.skipIf(unable !== undefined)(
  'containers that come and go leave nothing, and the planner does not grow',
  async () => {
    const { base, root, oci, bundle, command } = await prepare()
    const socket = join(base, 'planner/socket')
    const planner = await startPlanner(command, socket)
    endings.push(() => planner.stop())
    const folder = bundle('exit 3')
    const env = { KILN_OCI_PLANNER_SOCKET: socket }
    const cycle = (id: string): void => {
      expect(oci(['run', '--bundle', folder, id], { env })).toMatchObject({ code: 3, err: '' })
      expect(oci(['create', '--bundle', folder, id], { env })).toMatchObject({ code: 0, err: '' })
      expect(oci(['start', id], { env })).toMatchObject({ code: 0, err: '' })
      expect(oci(['delete', '--force', id], { env })).toMatchObject({ code: 0, err: '' })
      expect(leftovers(base, root, id)).toEqual([])
    }
    for (let index = 0; index < 5; index++) cycle(`warm${index}`)
    const before = counts(planner.pid)
    for (let index = 0; index < cycles; index++) cycle(`c${index}`)
    const after = counts(planner.pid)
    console.log(`${cycles} cycles; the planner's RSS ${(after.rssMiB - before.rssMiB).toFixed(1)} MiB more`)
    expect(after).toMatchObject({ mounts: before.mounts, threads: before.threads })
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors)
    expect(readdirSync(root)).toEqual([])
    if (cycles >= 500) expect(after.rssMiB - before.rssMiB).toBeLessThan(32)
    // It is the planner's service that was measured: run and create ask it, and none had to start one of its own.
    expect(await planner.stop()).toBeGreaterThanOrEqual(2 * (cycles + 5))
  },
  60_000 + cycles * 2_000,
)
