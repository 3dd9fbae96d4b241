/**
 * The part of the black-box runner that lives in namespaces of its own: reads the cases on standard input, writes one
 * result per line. Started by `blackbox.ts`.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Fault } from '@kiln/service'
import { ignite } from '../ignite.ts'
import { parseOptions, type StageName } from '../options.ts'
import { createRun } from '../run-of-machine.ts'
import type { BlackboxFile, BlackboxOptions } from './blackbox.ts'
import {
  type Case,
  type CaseRun,
  missingNeed,
  runsOf,
  unmountableFormat,
  withFreshValues,
} from './blackbox-case.ts'
import { differences } from './blackbox-compare.ts'
import { isPresent, type LoopDisk, makeDisk, mounted, removeDisk, tool } from './blackbox-disks.ts'
import type { CaseResult } from './case-result.ts'
import { startCaseServers } from './case-servers.ts'
import {
  type Authority,
  type Fixtures,
  fixtureListener,
  makeAuthority,
  serve,
  serveTftp,
} from './fixtures.ts'

type Order = BlackboxOptions & { files: BlackboxFile[]; scratch: string }

/** Runs at the same time: two cores are enough for a run and the disks of the next. */
const runsMax = 4
/** What a run may take: a stage retries some fetches for ever, as the specification asks. */
const runMsMax = 120_000
/** Day the reference's account programs say they run on: 17331 days after 1970. */
const accountDate = `${17_331 * 86_400}`

type Surroundings = {
  scratch: string
  images: Record<string, string>
  authority: Authority
  filesystems: ReadonlySet<string>
}

async function runCase(run: CaseRun, around: Surroundings): Promise<CaseResult> {
  const { name } = run
  const each = withFreshValues(run)
  const missing = missingNeed(each, around.filesystems)
  if (missing !== undefined) return { name, outcome: 'skipped', detail: missing }
  const folder = mkdtempSync(join(around.scratch, 'case-'))
  const disks: LoopDisk[] = []
  const { config, stop } = await startCaseServers(each, around.authority)
  try {
    for (const [index, disk] of each.in.entries()) {
      const file = join(folder, `disk${index}`)
      const made = await makeDisk(disk, each.out[index], { file, images: around.images, scratch: folder })
      disks.push(made)
      disksInUse.add(made)
    }
    const text = around.authority.replacements.reduce(
      (before, [from, to]) => before.replaceAll(from, to),
      withDevices(each, config, disks),
    )
    const unmountable = unmountableFormat(text, around.filesystems)
    const stages = await runStages(each, text, disks, folder, unmountable !== undefined)
    const wrong: string[] = []
    if (each.expect === 'failure') {
      if (stages.failed === undefined) wrong.push('every stage succeeded, but one must fail')
    } else if (stages.failed !== undefined) {
      wrong.push(`stage ${stages.failed} failed: ${stages.said.at(-1) ?? ''}`)
    } else {
      for (const [index, disk] of disks.entries()) {
        const found = await differences(disk, each.out[index]!, folder)
        wrong.push(...found.map((difference) => `disk ${index}: ${difference}`))
      }
    }
    if (wrong.length > 0) return { name, outcome: 'failed', detail: wrong.join('; ') }
    if (unmountable === undefined) return { name, outcome: 'passed' }
    const why = `this kernel cannot mount ${unmountable}; what the stages up to disks do was right`
    return { name, outcome: 'skipped', detail: why }
  } finally {
    await stop()
    for (const disk of disks) {
      await removeDisk(disk)
      disksInUse.delete(disk)
    }
    rmSync(folder, { recursive: true, force: true })
  }
}

function withDevices(each: Case, config: string, disks: LoopDisk[]): string {
  let text = config
  for (const [index, disk] of disks.entries()) {
    text = text.replaceAll(new RegExp(`\\$disk${index}(?!\\d)`, 'g'), disk.device)
  }
  for (const { label, substitution } of each.mountDevices) {
    const device = partitionLabelled(each, disks, label)
    if (device !== undefined) text = text.replaceAll(substitution, device)
  }
  return text
}

function partitionLabelled(each: Case, disks: LoopDisk[], label: string): string | undefined {
  for (const [index, { partitions }] of each.in.entries()) {
    const found = partitions.filter(isPresent).find((partition) => partition.label === label)
    if (found) return disks[index]!.partition(found.number)
  }
  return undefined
}

type Stages = { failed: string | undefined; said: string[] }

/** Every stage in its turn, with what one tells the other in files, as separate processes would. */
async function runStages(
  each: Case,
  config: string,
  disks: LoopDisk[],
  folder: string,
  onlyDisks: boolean,
): Promise<Stages> {
  const root = join(folder, 'root')
  const systemConfig = join(folder, 'system-config')
  mkdirSync(root)
  mkdirSync(systemConfig)
  writeFileSync(join(folder, 'config.ign'), config)
  for (const { dir, name, contents } of each.systemConfigFiles) {
    const path = join(systemConfig, dir, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, contents ?? '')
  }
  const env = {
    PATH: process.env['PATH'],
    IGNITION_CONFIG_FILE: join(folder, 'config.ign'),
    IGNITION_SYSTEM_CONFIG_DIR: systemConfig,
    SOURCE_DATE_EPOCH: accountDate,
    ...Object.fromEntries(each.env.map((pair) => [pair.split('=')[0], pair.slice(pair.indexOf('=') + 1)])),
  }
  const said: string[] = []
  const stage = async (name: StageName): Promise<boolean> => {
    const flags = ['-platform', 'file', '-root', root, '-stage', name]
    for (const [flag, file] of [
      ['config-cache', 'ignition.json'],
      ['state-file', 'state'],
      ['neednet', 'neednet'],
    ]) {
      flags.push(`-${flag}`, join(folder, file!))
    }
    try {
      const run = createRun(parseOptions(flags, env), env, (line) => void said.push(line.trimEnd()))
      return (await ignite(run)) === 0
    } catch (error) {
      said.push(error instanceof Fault ? `${error.code}: ${error.message}` : String((error as Error).stack))
      return false
    }
  }
  for (const name of ['fetch', 'disks'] as const) if (!(await stage(name))) return { failed: name, said }
  if (onlyDisks) return { failed: undefined, said }
  const system = partitionLabelled(each, disks, 'ROOT')
  const rest = async (): Promise<string | undefined> => {
    for (const name of ['mount', 'files'] as const) {
      if (!(await stage(name))) {
        await stage('umount')
        return name
      }
    }
    return (await stage('umount')) ? undefined : 'umount'
  }
  if (system === undefined) return { failed: await rest(), said }
  let failed: string | undefined
  await mounted({ device: system }, root, async () => {
    failed = await rest()
  })
  return { failed, said }
}

/** Names of the file systems this kernel can mount. */
const kernelFilesystems = (): ReadonlySet<string> =>
  new Set(
    readFileSync('/proc/filesystems', 'utf8')
      .split('\n')
      .filter((line) => !line.startsWith('nodev'))
      .map((line) => line.trim()),
  )

/** A run that does not end is left behind, a failure; the process ends at the end of all, and it with that. */
async function withinLimit(name: string, running: Promise<CaseResult>): Promise<CaseResult> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<CaseResult>((resolve) => {
    timer = setTimeout(() => {
      unended++
      resolve({ name, outcome: 'failed', detail: `did not end within ${runMsMax / 1000} s` })
    }, runMsMax)
  })
  return await Promise.race([running, late]).finally(() => clearTimeout(timer))
}

/** Runs that were left behind, and the disks of all that are under way. */
let unended = 0
const disksInUse = new Set<LoopDisk>()
const order = JSON.parse(readFileSync(0, 'utf8')) as Order
const readJson = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'))
await tool('ip', ['link', 'set', 'lo', 'up'])
await tool('mount', ['--make-rprivate', '/'])
const authority = await makeAuthority(readJson(order.data.served) as Fixtures)
const servers = [await serve(fixtureListener(authority.routes), 8080), await serveTftp(authority.routes)]
const around: Surroundings = {
  scratch: order.scratch,
  images: readJson(order.data.images) as Record<string, string>,
  authority,
  filesystems: kernelFilesystems(),
}
const waiting = order.files.flatMap(({ cases }) => cases.flatMap((each) => runsOf(each, order.full)))
let stopping = false
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  // The run at hand takes its loop devices away before it ends.
  process.on(signal, () => {
    stopping = true
  })
}
process.stdout.on('error', () => {
  // Nobody reads any more.
  stopping = true
})
const worker = async (): Promise<void> => {
  for (let run = waiting.shift(); run && !stopping; run = waiting.shift()) {
    const { name } = run
    const result = await withinLimit(name, runCase(run, around)).catch(
      (error: Error): CaseResult => ({
        name,
        outcome: 'failed',
        detail: `the runner failed: ${error.stack}`,
      }),
    )
    process.stdout.write(`${JSON.stringify(result)}\n`)
  }
}
await Promise.all(Array.from({ length: runsMax }, worker))
if (unended > 0) {
  for (const disk of disksInUse) await removeDisk(disk)
  process.exit()
}
await Promise.all(servers.map((server) => server.close()))
