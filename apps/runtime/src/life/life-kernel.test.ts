import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, watch, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { PodManifest } from '@kiln/schemas'
import { createLog } from '@kiln/service'
import { afterEach, expect } from 'vitest'
import { type RuntimeApi, serveApi } from '../api.ts'
import { runCommand } from '../commands.ts'
import type { PodEvent } from '../events/event-log.ts'
import type { Manager } from '../manager.ts'
import { image, newFolder, onHost, openRuntime, shellPod } from '../testing/host-runtime.ts'
import { inState, isHeld, lifeFolder } from './folders.ts'
import type { PodEntry } from './pod-entry.ts'

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

/** A daemon over a folder, and its command line. */
async function node(folder: string) {
  const { manager, life, kernel, initPath, events } = await openRuntime(folder)
  const socket = join(folder, 'r.sock')
  const api = {
    list: () => manager.statuses(),
    stop: (name: string, grace?: number) => manager.stop(name, grace),
    planExec: async (name: string, wanted: { args: string[] }) => ({
      planFile: await kernel.planExec(manager.record(name), wanted),
      initPath,
    }),
    life,
    events,
  } as unknown as RuntimeApi
  mkdirSync(join(folder, 'state/exits'), { recursive: true })
  const exits = watch(join(folder, 'state/exits'), (_, name) =>
    manager.wake(String(name).split('.')[0] ?? ''),
  )
  const server = await serveApi({ socket, api, log: createLog('test', 'silent') })
  closers.push(() => {
    exits.close()
    return server.close()
  })
  const notified: string[] = []
  const run = async (...argv: string[]): Promise<{ code: number; out: string[]; err: string[] }> => {
    const out: string[] = []
    const err: string[] = []
    const ports = {
      socket,
      notify: (state: string) => notified.push(state),
      environment: { FROM: 'here', PATH: '/nowhere' },
      print: (line: string) => out.push(line),
      complain: (line: string) => err.push(line),
    }
    return { code: await runCommand(argv, ports), out, err }
  }
  return { manager, life, run, socket, notified, stateDir: join(folder, 'state') }
}

function podFile(folder: string, pod: PodManifest): string {
  const file = join(folder, `${pod.metadata.name}.json`)
  writeFileSync(file, JSON.stringify(pod))
  return file
}

const once = { restartPolicy: 'Never' }

async function waitUntil(holds: () => boolean | Promise<boolean>, manager?: Manager): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (await holds()) return
    manager?.wake('hello')
    await sleep(50)
  }
  throw new Error('not in time')
}

onHost(
  'run shows the output, exits as the app did, and leaves a pod that is over until it is collected',
  async () => {
    const folder = newFolder()
    const { run, stateDir } = await node(folder)
    const saved = join(folder, 'uuid')
    const file = podFile(folder, shellPod('echo hi; sleep 0.2; exit 7', once))
    const ran = await run('run', '--pod-manifest', file, '--uuid-file-save', saved)
    expect(ran).toMatchObject({ code: 7, out: ['hi'], err: [] })
    const uuid = readFileSync(saved, 'utf8').trim()
    const status = await run('status', uuid.slice(0, 8))
    expect(status.out).toEqual(expect.arrayContaining(['state=exited', 'exited=true', 'app-main=7']))
    expect((await run('status', '--uuid-file', saved)).out).toEqual(status.out)
    expect((await run('list', '--format=json')).out.map((text) => JSON.parse(text))[0]).toMatchObject([
      { uuid, name: 'hello', state: 'exited', exitCode: 7 },
    ])
    expect((await run('cat-manifest', uuid)).out.join('\n')).toContain('exit 7')
    expect(await run('stop', uuid)).toMatchObject({ code: 4 })
    const told = (await run('events', uuid, '--json')).out.map((line) => JSON.parse(line) as PodEvent)
    expect(told.map(({ reason, exitCode }) => `${reason}${exitCode ?? ''}`)).toEqual([
      'Prepared',
      'ImagePulled',
      'NetworkAttached',
      'Started',
      'Exited7',
      'Over7',
    ])
    // Its name is free: the same pod again is another one.
    expect((await run('run', '--pod-manifest', file)).code).toBe(7)

    expect((await run('gc', '--mark-only')).out).toHaveLength(2)
    expect((await run('status', uuid)).out[0]).toBe('state=exited garbage')
    expect((await run('gc')).out).toEqual([])
    expect((await run('gc', '--grace-period=0s')).out).toHaveLength(2)
    expect(await inState(stateDir, 'exited-garbage')).toEqual([])
    expect(await inState(stateDir, 'garbage')).toEqual([])
    expect(await run('status', uuid)).toMatchObject({
      code: 3,
      err: [expect.stringContaining('POD_NOT_FOUND')],
    })
  },
)

onHost('of two that run one prepared pod at once exactly one wins', async () => {
  const folder = newFolder()
  const { run, stateDir } = await node(folder)
  const prepared = await run(
    'prepare',
    '--quiet',
    '--pod-manifest',
    podFile(folder, shellPod('exit 3', once)),
  )
  expect(prepared).toMatchObject({ code: 0, err: [] })
  const [uuid] = prepared.out
  expect((await run('status', uuid!)).out[0]).toBe('state=prepared')
  expect(existsSync(join(lifeFolder(stateDir, 'prepared', uuid), 'pod.json'))).toBe(true)
  const both = await Promise.all([run('run-prepared', uuid!), run('run-prepared', uuid!)])
  expect(both.map(({ code }) => code).sort()).toEqual([254, 3])
  expect(both.flatMap(({ err }) => err)).toEqual([expect.stringContaining('POD_NOT_PREPARED')])
  expect((await run('rm', uuid!)).code).toBe(0)
  expect((await run('rm', uuid!)).code).toBe(3)
})

onHost('a process of the pod holds its lock as long as it runs, whoever asks', async () => {
  const folder = newFolder()
  const { run, stateDir, manager, notified } = await node(folder)
  const ready = { readinessProbe: { exec: { command: ['test', '-e', '/tmp/ready'] }, periodSeconds: 1 } }
  const script = 'mkdir -p /tmp; sleep 1; touch /tmp/ready; trap "exit 5" TERM; sleep 1000 & wait'
  const asRoot = { ...ready, securityContext: { runAsUser: 0 } }
  const file = podFile(folder, shellPod(script, once, asRoot))
  const running = run('run', '--pod-manifest', file)
  await waitUntil(async () => (await inState(stateDir, 'run')).length === 1)
  expect(notified).toEqual([])
  const [uuid] = await inState(stateDir, 'run')
  const place = lifeFolder(stateDir, 'run', uuid)
  expect((await run('status', '--wait-ready=20s', uuid!)).out[0]).toBe('state=running')
  expect(await isHeld(place)).toBe(true)
  expect((await run('gc', '--grace-period=0s')).out).toEqual([])
  expect(await run('rm', uuid!)).toMatchObject({ code: 4, err: [expect.stringContaining('POD_RUNS')] })
  expect(await run('export', uuid!, join(folder, 'x.tar'))).toMatchObject({ code: 4 })
  expect((await run('enter', uuid!, 'sh', '-c', 'exit 9')).code).toBe(9)
  expect((await run('run', '--pod-manifest', file)).err[0]).toContain('POD_NAME_TAKEN')
  const waited = run('status', '--wait', uuid!)
  expect((await run('stop', uuid!)).code).toBe(0)
  await waitUntil(async () => !(await isHeld(place)), manager)
  expect((await waited).out).toContain('app-main=5')
  expect((await running).code).toBe(5)
  // Once, and when the probe has passed.
  expect(notified).toEqual(['READY=1'])
  expect((await run('export', uuid!, join(folder, 'x.tar'))).code).toBe(0)
  expect(execFileSync('tar', ['-tf', join(folder, 'x.tar')], { encoding: 'utf8' })).toMatch(
    /\.\/tmp\/ready\n/,
  )
})

onHost('the first container that fails ends the others, and its code is the pod’s', async () => {
  const folder = newFolder()
  const { run } = await node(folder)
  const pod = shellPod('sleep 1000', { ...once, terminationGracePeriodSeconds: 0 })
  const [main] = pod.spec.containers
  pod.spec.containers = [main!, { ...main!, name: 'side', command: ['sh', '-c', 'sleep 0.3; exit 6'] }]
  expect((await run('run', '--pod-manifest', podFile(folder, pod))).code).toBe(6)
})

onHost('a preparation that is killed is seen and collected, by this daemon and by the next', async () => {
  const folder = newFolder()
  const { run, socket, stateDir } = await node(folder)
  const fifo = join(folder, 'never.tar')
  execFileSync('mkfifo', [fifo])
  const file = podFile(folder, shellPod('true', once, { image: `docker-archive:${fifo}` }))
  const main = new URL('../main.ts', import.meta.url).pathname
  const cli = spawn(process.execPath, [main, '--socket', socket, 'prepare', '--pod-manifest', file])
  const states = async (): Promise<string[]> =>
    (JSON.parse((await run('list', '--format=json')).out[0]!) as PodEntry[]).map(({ state }) => state)
  await waitUntil(async () => (await states())[0] === 'preparing')
  expect((await run('gc', '--grace-period=0s')).out).toEqual([])
  cli.kill('SIGKILL')
  await waitUntil(async () => (await states())[0] === 'aborted prepare')
  expect((await run('gc')).out).toEqual([
    expect.stringContaining('marked'),
    expect.stringContaining('removed'),
  ])
  expect(await states()).toEqual([])
  writeFileSync(fifo, 'no archive')

  // What a daemon leaves that dies in between.
  for (const [state, uuid] of [
    ['embryo', 'one'],
    ['prepare', 'two'],
    ['garbage', 'three'],
  ] as const)
    mkdirSync(lifeFolder(stateDir, state, uuid), { recursive: true })
  const prepared = await run(
    'prepare',
    '--quiet',
    '--pod-manifest',
    podFile(folder, shellPod('exit 0', once)),
  )
  await closers.pop()?.()
  const next = await node(folder)
  const found = JSON.parse((await next.run('list', '--format=json')).out[0]!) as PodEntry[]
  expect(found.map(({ uuid, state }) => `${uuid} ${state}`).sort()).toEqual(
    ['one embryo', `${prepared.out[0]} prepared`, 'three deleting', 'two aborted prepare'].sort(),
  )
  await next.run('gc', '--expire-prepared=0s')
  expect((await next.run('list', '--full', '--no-legend')).out).toEqual([])
})

onHost('a wanted pod with the uid of one that is over has its folder, and is not collected', async () => {
  const folder = newFolder()
  const { run, manager, stateDir } = await node(folder)
  const pod = shellPod('exit 0', once)
  pod.metadata.uid = 'fixed-1'
  const file = podFile(folder, pod)
  expect((await run('run', '--pod-manifest', file)).code).toBe(0)
  expect((await run('run', '--pod-manifest', file)).err[0]).toContain('POD_UUID_TAKEN')
  manager.want('file', new Map([['hello', { ...pod, spec: { ...pod.spec, hostname: 'other' } }]]))
  await waitUntil(() => manager.statuses()[0]?.phase === 'Succeeded')
  expect((await run('gc', '--grace-period=0s')).out).toEqual([])
  expect(await inState(stateDir, 'run')).toEqual(['fixed-1'])
  expect((await run('list', '--full', '--no-legend')).out).toHaveLength(1)
  manager.want('file', new Map())
  await waitUntil(() => manager.statuses().length === 0)
  expect((await run('list', '--full', '--no-legend')).out).toEqual([])
})

onHost('apps of several images are run with their flags', async () => {
  const folder = newFolder()
  const { run } = await node(folder)
  const source = `docker-archive:${image}`
  const app = [source, '--exec', '/bin/sh', '--mount', 'volume=usr,target=/usr']
  const line = [
    ...[
      'run',
      '--volume',
      'usr,kind=host,source=/usr,readOnly=true',
      '--set-env',
      'A=all',
      '--name',
      'one',
      ...app,
    ],
    ...['--environment', 'A=own', '--user', '77', '--', '-c', 'echo "$A $B $(id -u)"'],
    ...['---', '--name', 'two', ...app, '--', '-c', 'sleep 0.5; echo $A; exit 8'],
  ]
  const ran = await run(...line)
  expect(ran).toMatchObject({ code: 8, err: [] })
  expect(ran.out.sort()).toEqual(['all', 'own  77'])
  const file = podFile(folder, shellPod('true', once))
  expect(await run('run', '--pod-manifest', file, '--exec', '/bin/true')).toMatchObject({ code: 254 })
})

onHost('a pod that ran when its daemon died is over under the next one, with its code', async () => {
  const folder = newFolder()
  const first = await node(folder)
  const file = podFile(folder, shellPod('sleep 0.7; exit 4', once))
  const { out } = await first.run('prepare', '-q', '--pod-manifest', file)
  const inForeground = first.run('run-prepared', out[0]!)
  await waitUntil(async () => (await inState(first.stateDir, 'run')).length === 1)
  await waitUntil(() => first.manager.statuses()[0]?.ready ?? false)
  await first.manager.leave()
  await closers.pop()?.()
  const next = await node(folder)
  // Whoever runs it here waits for the daemon.
  expect(await inForeground).toMatchObject({ code: 4, err: [] })
  expect((await next.run('status', '--wait', out[0]!)).out).toContain('app-main=4')
  expect(await next.run('run', 'oci:/nowhere')).toMatchObject({ code: 254 })
  expect(statSync(lifeFolder(next.stateDir, 'run', out[0])).isDirectory()).toBe(true)
  renameSync(lifeFolder(next.stateDir, 'run', out[0]), join(folder, 'moved'))
  expect((await next.run('rm', out[0]!)).code).not.toBe(0)
})

onHost(
  'flags of rkt that Kubernetes has no field for reach the process; a prepared pod takes another name',
  async () => {
    const folder = newFolder()
    const { run } = await node(folder)
    writeFileSync(join(folder, 'env'), 'B=file\nC=file\n')
    const script =
      'id -u; cat /proc/self/oom_score_adj; mkdir /v/x 2>&1 || true; stat -c %a:%u:%g /v; echo $B $C $FROM $PATH; hostname'
    const flags = [
      ...['--user', 'web', '--oom-score-adjust', '77', '--seccomp', 'mode=remove,errno=ENOSPC,mkdir,mkdirat'],
      ...['--volume', 'usr,kind=host,source=/usr,readOnly=true', '--mount', 'volume=usr,target=/usr'],
      ...['--volume', 'v,kind=empty,mode=0707,uid=3,gid=4', '--mount', 'volume=v,target=/v'],
      ...['--set-env-file', join(folder, 'env'), '--set-env', 'C=set', '--inherit-env', '--net', 'none'],
    ]
    const prepared = await run(
      'prepare',
      '--quiet',
      ...flags,
      `docker-archive:${image}`,
      '--exec',
      '/bin/sh',
      '--',
      '-c',
      script,
    )
    expect(prepared, prepared.err.join('\n')).toMatchObject({ code: 0 })
    const ran = await run('run-prepared', prepared.out[0]!, '--hostname', 'later')
    expect(ran.err).toEqual([])
    expect(ran.out.slice(0, 2)).toEqual(['1234', '77'])
    expect(ran.out[2]).toMatch(/No space left on device/)
    // The image's PATH, not that of whoever asks.
    expect(ran.out.slice(3)).toEqual(['707:3:4', 'file set here /bin', 'later'])
    const unknown = await run('prepare', '--quiet', ...flags, '--user', 'nobody', `docker-archive:${image}`)
    expect(unknown.code).toBe(0)
    const running = run('run-prepared', unknown.out[0]!)
    const status = async (): Promise<string> =>
      (await run('status', '--format', 'json', unknown.out[0]!)).out.join('')
    await waitUntil(async () => (await status()).includes('has no user nobody'))
    // The command looks ten times a second.
    await sleep(1_500)
    await run('stop', '--force', unknown.out[0]!)
    expect((await running).err[0]).toContain('cannot be started, and is tried again: POD_USER_UNKNOWN: ')
  },
)
