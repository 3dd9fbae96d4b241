import { existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { buildNative } from './build.ts'
import { capabilitiesFor } from './capabilities.ts'
import { examplePlan } from './example-plan.ts'
import { type ExitRecord, isAlive, type RunningRecord, signalProcess, startPlan } from './launcher.ts'
import type { ContainerPlan, Plan } from './plan.ts'
import { encodePlan } from './plan-codec.ts'

const missing = process.getuid?.() === 0 ? undefined : 'making namespaces without root'
if (missing) console.log(`skipped: starting containers on this host: ${missing}`)
const onHost = test.skipIf(missing !== undefined)

const base = mkdtempSync(join(tmpdir(), 'kiln-init-'))
let initPath = ''
beforeAll(async () => {
  initPath = await buildNative(base)
}, 120_000)

/** A folder with an empty image whose /usr will be the host's. */
function newFolder(): string {
  const folder = mkdtempSync(join(base, 'c-'))
  for (const name of ['root', 'lower', 'upper', 'work']) mkdirSync(join(folder, name))
  for (const name of ['bin', 'lib', 'lib64', 'sbin']) symlinkSync(`usr/${name}`, join(folder, 'lower', name))
  return folder
}

function start(folder: string, plan: Plan): Promise<RunningRecord> {
  const planFile = join(folder, `${plan.kind}.plan`)
  writeFileSync(planFile, encodePlan(plan))
  return startPlan({ initPath, planFile, timeoutMs: 20_000 })
}

async function exitOf(plan: ContainerPlan): Promise<ExitRecord> {
  for (let attempt = 0; !existsSync(plan.exitFile); attempt++) {
    if (attempt > 400) throw new Error('no exit status within 20 s')
    await sleep(50)
  }
  return JSON.parse(readFileSync(plan.exitFile, 'utf8')) as ExitRecord
}

/** Runs a shell script in a container to its end; its output without time stamps. */
async function runScript(
  script: string,
  change: (plan: ContainerPlan) => ContainerPlan = (plan) => plan,
): Promise<{ exit: ExitRecord; out: string[]; err: string[] }> {
  const folder = newFolder()
  const plan = change(examplePlan(folder, ['sh', '-c', script]))
  await start(folder, plan)
  const exit = await exitOf(plan)
  const lines = existsSync(plan.log.file) ? readFileSync(plan.log.file, 'utf8').split('\n') : []
  const of = (stream: string): string[] =>
    lines.filter((line) => line.includes(` ${stream} `)).map((line) => line.replace(/^\S+ \S+ [FP] /, ''))
  return { exit, out: of('stdout'), err: of('stderr') }
}

onHost(
  'a container has its own processes, host name, mounts and network, and its exit code is kept',
  async () => {
    const { exit, out, err } = await runScript(`
    echo pid $$; uname -n; pwd; echo "$GREETING"; cat /sys/class/net/lo/operstate; ls /sys/class/net
    ls -d /work /root /old_root 2>/dev/null; echo oops >&2; exit 7`)
    expect(out).toEqual(['pid 1', 'example', '/srv/work', 'hello', 'unknown', 'lo'])
    expect(err).toEqual(['oops'])
    expect(exit).toMatchObject({ formatVersion: 1, code: 7, signal: 0 })
  },
)

onHost('a source that others write is mounted only when no symlink leads to it', async () => {
  const folder = newFolder()
  mkdirSync(join(folder, 'real'))
  writeFileSync(join(folder, 'real/file'), 'inside')
  symlinkSync('real', join(folder, 'link'))
  const from = (source: string, plainSource: boolean): Promise<{ out: string[] }> =>
    runScript('cat /m/file', (plan) => ({
      ...plan,
      mounts: [
        ...plan.mounts,
        {
          source: join(folder, source),
          target: '/m',
          type: '',
          flags: ['bind'],
          create: 'directory',
          plainSource,
        },
      ],
    }))
  expect((await from('real', true)).out).toEqual(['inside'])
  expect((await from('link', false)).out).toEqual(['inside'])
  await expect(from('link', true)).rejects.toThrow(/symbolic|ELOOP/i)
})

onHost('a root process keeps only the planned capabilities, limits and no way to more', async () => {
  const { out } = await runScript(
    'grep -E "Cap(Eff|Bnd|Amb)|NoNewPrivs" /proc/self/status; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; umask',
  )
  const mask = '0000000000000421'
  expect(out).toEqual([
    `CapEff:\t${mask}`,
    `CapBnd:\t${mask}`,
    'CapAmb:\t0000000000000000',
    'NoNewPrivs:\t1',
    '256',
    '512',
    '100',
    '0022',
  ])
})

onHost(
  'another user has its ids and groups, no capabilities, and cannot write what is read-only',
  async () => {
    const { out } = await runScript(
      'id; grep CapEff /proc/self/status; touch /usr/x 2>/dev/null || echo usr; touch /x 2>/dev/null || echo root',
      (plan) => ({
        ...plan,
        readonlyRoot: true,
        process: {
          ...plan.process,
          uid: 1234,
          gid: 1235,
          groups: [7, 8],
          capabilities: capabilitiesFor(['CHOWN'], 1234),
        },
      }),
    )
    expect(out[0]).toMatch(/^uid=1234 gid=1235 groups=1235,7\(?.*,8/)
    expect(out.slice(1)).toEqual(['CapEff:\t0000000000000000', 'usr', 'root'])
  },
)

onHost(
  'masked files are empty, read-only paths refuse writes, and no descriptor of the host is open',
  async () => {
    const { out } = await runScript(
      `wc -c </proc/version; ls /proc/scsi; sh -c "echo 1 >/proc/sys/kernel/core_uses_pid" 2>/dev/null || echo refused
     for d in /proc/self/fd/*; do case $d in *[012]) ;; *) readlink $d;; esac; done; stat -c %t:%T /dev/null`,
    )
    expect(out[0]).toBe('0')
    expect(out).toContain('refused')
    expect(out.at(-1)).toBe('1:3')
    expect(out.filter((line) => line.startsWith('/') && !line.startsWith('/proc/'))).toEqual([])
  },
)

onHost('a symlink in the image that leads out of it is followed inside the image only', async () => {
  const folder = newFolder()
  const plan = examplePlan(folder, ['sh', '-c', 'ls -d /tmp/escaped'])
  symlinkSync('../../../../../../tmp/escaped', join(folder, 'lower', 'data'))
  mkdirSync(join(folder, 'lower/tmp/escaped'), { recursive: true })
  plan.mounts.push({ source: folder, target: '/data', type: '', flags: ['bind', 'ro'], create: 'directory' })
  await start(folder, plan)
  expect((await exitOf(plan)).code).toBe(0)
  expect(existsSync('/tmp/escaped')).toBe(false)
})

onHost('a program that does not exist is a fault that names it, and nothing is left running', async () => {
  const folder = newFolder()
  const plan = examplePlan(folder, ['/bin/no-such-program'])
  await expect(start(folder, plan)).rejects.toMatchObject({
    code: 'CONTAINER_EXEC_FAILED',
    message: 'exec /bin/no-such-program: No such file or directory',
  })
  expect(existsSync(plan.runningFile)).toBe(false)
  expect(existsSync(plan.exitFile)).toBe(false)
})

onHost('a mount that fails is a fault that names the step and the path', async () => {
  const folder = newFolder()
  const plan = examplePlan(folder)
  plan.mounts.push({
    source: '/no/such/source',
    target: '/data',
    type: '',
    flags: ['bind'],
    create: 'directory',
  })
  await expect(start(folder, plan)).rejects.toMatchObject({
    code: 'CONTAINER_START_FAILED',
    message: 'open mount source /no/such/source: No such file or directory',
  })
})

onHost(
  'a container is found by pid and start time, is no descendant of its starter, and ends by signal',
  async () => {
    const folder = newFolder()
    const plan = examplePlan(folder, ['sleep', '1000'])
    const running = await start(folder, plan)
    expect(JSON.parse(readFileSync(plan.runningFile, 'utf8'))).toEqual(running)
    const container = { pid: running.pid, startTime: running.startTime }
    expect(await isAlive(container)).toBe(true)
    expect(readFileSync(`/proc/${running.monitorPid}/status`, 'utf8')).not.toContain(
      `PPid:\t${process.pid}\n`,
    )
    expect(await signalProcess(initPath, { ...container, startTime: '1' }, 'KILL')).toBe(false)
    expect(await signalProcess(initPath, container, 'KILL')).toBe(true)
    expect(await exitOf(plan)).toMatchObject({ code: 137, signal: 9 })
    expect(await isAlive(container)).toBe(false)
  },
)

onHost('the container dies with its monitor, so that nothing runs unseen', async () => {
  const folder = newFolder()
  const running = await start(folder, examplePlan(folder, ['sleep', '1000']))
  process.kill(running.monitorPid, 'SIGKILL')
  const container = { pid: running.pid, startTime: running.startTime }
  for (let attempt = 0; (await isAlive(container)) && attempt < 200; attempt++) await sleep(25)
  expect(await isAlive(container)).toBe(false)
})

onHost('two containers of a sandbox share its network and host name but not their processes', async () => {
  const folder = newFolder()
  const sandbox = await start(folder, {
    kind: 'sandbox',
    id: 'example',
    runningFile: join(folder, 'sandbox'),
    namespaces: ['network', 'ipc', 'uts'],
    hostname: 'shared',
    loopback: true,
  })
  const join_ = { pid: sandbox.pid, startTime: sandbox.startTime }
  const scripts = [
    'uname -n; readlink /proc/self/ns/net; echo $$',
    'uname -n; readlink /proc/self/ns/net; echo $$',
  ]
  const outputs = []
  for (const script of scripts) {
    const { out } = await runScript(script, ({ hostname: _, ...plan }) => ({
      ...plan,
      namespaces: ['pid', 'mount'],
      join: { ...join_, namespaces: ['network', 'ipc', 'uts'] },
      loopback: false,
    }))
    outputs.push(out)
  }
  process.kill(sandbox.pid, 'SIGKILL')
  expect(outputs[0]).toEqual(outputs[1])
  expect(outputs[0]?.[0]).toBe('shared')
  expect(outputs[0]?.[2]).toBe('1')
})

onHost('long lines are split, a last line without an end is kept, and the log file is rotated', async () => {
  const folder = newFolder()
  const plan = examplePlan(folder, [
    'sh',
    '-c',
    'head -c 10000 /dev/zero | tr "\\0" x; echo; for i in $(seq 2000); do echo "line $i of many"; done; printf end',
  ])
  await start(folder, plan)
  await exitOf(plan)
  const older = readFileSync(`${plan.log.file}.1`, 'utf8').split('\n')
  expect(older[0]).toMatch(/^\S+Z stdout P x{8192}$/)
  expect(older[1]).toMatch(/^\S+Z stdout F x{1808}$/)
  const newer = readFileSync(plan.log.file, 'utf8').split('\n')
  expect(newer.at(-2)).toMatch(/stdout F end$/)
  expect(older.length + newer.length).toBe(2 + 2000 + 1 + 2)
})
