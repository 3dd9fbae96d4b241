import { statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client, type ClientReadableStream, credentials, type ServiceError } from '@grpc/grpc-js'
import * as messages from '@kiln/runtime-api/messages'
import { createLog } from '@kiln/service'
import { afterEach, expect } from 'vitest'
import type { RuntimeApi } from '../api.ts'
import { openImageService } from '../image-service.ts'
import { imagesOf } from '../images.ts'
import { image, newFolder, onHost, openRuntime, shellPod } from '../testing/host-runtime.ts'
import { serveGrpc } from './runtime-service.ts'

const closers: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

type Codec<T> = { encode(message: T): { finish(): Uint8Array }; decode(bytes: Uint8Array): T }

/** A daemon over a folder, and a client of grpc-js with the generated codecs. */
async function serve(folder: string) {
  const { manager, life, kernel, initPath, events, images } = await openRuntime(folder)
  const log = createLog('test', 'silent')
  const api = {
    list: () => manager.statuses(),
    run: (manifest: Parameters<typeof manager.run>[0]) => manager.run(manifest),
    stop: (name: string, grace?: number) => manager.stop(name, grace),
    remove: (name: string, grace?: number) => manager.remove(name, grace),
    planExec: async (name: string, wanted: { args: string[] }) => ({
      planFile: await kernel.planExec(manager.record(name), wanted),
      initPath,
    }),
    life,
    events,
    images: openImageService({
      images,
      folder: join(folder, 'state/images'),
      users: () => life.imageUsers(),
      inUse: () => imagesOf(life.imageUsers()),
      imagePolicyFile: join(folder, 'image-policy.json'),
      signal: new AbortController().signal,
      log,
    }),
  } as unknown as RuntimeApi
  const socket = join(folder, 'grpc.sock')
  const server = await serveGrpc({ socket, api, log })
  closers.push(() => server.close())
  const client = new Client(`unix:${socket}`, credentials.createInsecure())
  closers.push(() => client.close())
  const path = (method: string): string => `/kiln.runtime.v1.Runtime/${method}`
  const bytes =
    <T>(codec: Codec<T>) =>
    (message: T): Buffer =>
      Buffer.from(codec.encode(message).finish())
  const call = <Q, A>(method: string, request: Codec<Q>, response: Codec<A>, message: Q): Promise<A> =>
    new Promise((resolve, reject) =>
      client.makeUnaryRequest(
        path(method),
        bytes(request),
        (each) => response.decode(each),
        message,
        (error, answer) => (error ? reject(error) : resolve(answer!)),
      ),
    )
  const stream = <Q, A>(
    method: string,
    request: Codec<Q>,
    response: Codec<A>,
    message: Q,
  ): ClientReadableStream<A> =>
    client.makeServerStreamRequest(path(method), bytes(request), (each) => response.decode(each), message)
  const exec = () =>
    client.makeBidiStreamRequest(path('Exec'), bytes(messages.ExecRequest), (each) =>
      messages.ExecResponse.decode(each),
    )
  return { socket, call, stream, exec }
}

async function all<A>(stream: AsyncIterable<A>): Promise<A[]> {
  const answers: A[] = []
  for await (const answer of stream) answers.push(answer)
  return answers
}

const { ListPodsRequest, ListPodsResponse, InspectPodRequest, InspectPodResponse } = messages
const { RunPodRequest, RunPodResponse, StopPodRequest, StopPodResponse } = messages
const { RemovePodRequest, RemovePodResponse, ListImagesRequest, ListImagesResponse } = messages

onHost('a client of grpc-js runs a pod, talks to a program in it, follows it and removes it', async () => {
  const { socket, call, stream, exec } = await serve(newFolder())
  expect(statSync(socket).mode & 0o777).toBe(0o600)
  const following = stream('ListenEvents', messages.ListenEventsRequest, messages.Event, {
    pod: 'hello',
    after: 0n,
    follow: true,
  })
  const told: string[] = []
  following.on('data', (event: messages.Event) => told.push(event.reason))
  following.on('error', () => undefined)
  const script = 'echo one; echo two; trap "exit 3" TERM; sleep 1000 & wait'
  const manifest = JSON.stringify(shellPod(script, { restartPolicy: 'Never' }))
  const { pod } = await call('RunPod', RunPodRequest, RunPodResponse, { manifest, once: true })
  expect(pod).toMatchObject({ name: 'hello', state: 'running', supervised: true })
  const uuid = pod!.uuid
  const inspect = (id: string) => call('InspectPod', InspectPodRequest, InspectPodResponse, { pod: id })
  for (let tries = 0; !(await inspect('hello')).pod?.ready && tries < 200; tries++) await sleep(50)
  expect(JSON.parse((await inspect(uuid.slice(0, 9))).statusJson!)).toMatchObject({ phase: 'Running' })

  const program = exec()
  const heard: string[] = []
  const ended = new Promise<number>((resolve) =>
    program.on('data', ({ response }: messages.ExecResponse) => {
      if (response?.$case === 'exitCode') resolve(response.value)
      else if (response) heard.push(`${response.$case} ${Buffer.from(response.value)}`)
    }),
  )
  const args = ['sh', '-c', 'read line; echo "got $line"; exit 6']
  program.write({ request: { $case: 'start', value: { pod: 'hello', container: undefined, args } } })
  program.write({ request: { $case: 'input', value: Buffer.from('ping\n') } })
  program.end()
  expect(await ended).toBe(6)
  expect(heard).toEqual(['output got ping\n'])

  await call('StopPod', StopPodRequest, StopPodResponse, { pod: uuid, graceSeconds: undefined })
  for (let tries = 0; (await inspect(uuid)).pod?.state !== 'exited' && tries < 200; tries++) await sleep(50)
  const { pods } = await call('ListPods', ListPodsRequest, ListPodsResponse, {})
  expect(pods).toMatchObject([{ uuid, state: 'exited', exitCode: 3, apps: [{ name: 'main', exitCode: 3 }] }])
  const wanted = { pod: uuid, container: 'main', lines: 1, follow: false }
  const lines = await all(stream('GetLogs', messages.GetLogsRequest, messages.GetLogsResponse, wanted))
  expect(lines).toEqual([{ line: 'two' }])
  await call('RemovePod', RemovePodRequest, RemovePodResponse, { pod: uuid, graceSeconds: undefined })
  await expect(inspect(uuid)).rejects.toMatchObject({
    code: 5,
    details: expect.stringContaining('POD_NOT_FOUND'),
  })
  expect(told).toEqual([
    'Prepared',
    'ImagePulled',
    'NetworkAttached',
    'Started',
    'Stopping',
    'Exited',
    'Over',
  ])
  following.cancel()
})

onHost('a program at a terminal has its size, its keys and its end of input', async () => {
  const { call, exec } = await serve(newFolder())
  const manifest = JSON.stringify(shellPod('sleep 1000'))
  await call('RunPod', RunPodRequest, RunPodResponse, { manifest, once: true })
  const ready = async () =>
    (await call('InspectPod', InspectPodRequest, InspectPodResponse, { pod: 'hello' })).pod?.ready
  for (let tries = 0; !(await ready()) && tries < 200; tries++) await sleep(50)
  const program = exec()
  let heard = ''
  const ended = new Promise<number>((resolve) =>
    program.on('data', ({ response }: messages.ExecResponse) => {
      if (response?.$case === 'exitCode') return resolve(response.value)
      if (response)
        heard += `${response.$case === 'output' ? '' : response.$case}${Buffer.from(response.value)}`
      const next = steps[0]
      if (next && heard.includes(next.after)) {
        steps.shift()
        next.act()
      }
    }),
  )
  const type = (keys: string): void => {
    program.write({ request: { $case: 'input', value: Buffer.from(keys) } })
  }
  const steps = [
    {
      after: '10 40',
      act: () => {
        program.write({ request: { $case: 'resize', value: { rows: 20, columns: 60 } } })
        setTimeout(() => type('ping\n'), 100)
      },
    },
    { after: 'slept', act: () => type('\x03') },
    { after: 'interrupted', act: () => program.end() },
  ]
  const script =
    'test -t 0 && test -t 1 && test -t 2 && echo "$TERM $(tty)"; stty size; read line; stty size; echo "got $line" >&2; ' +
    'trap "echo interrupted" INT; echo slept; sleep 30; cat; exit 5'
  const value = {
    pod: 'hello',
    container: undefined,
    args: ['sh', '-c', script],
    terminal: { rows: 10, columns: 40 },
    terminalType: 'vt100',
  }
  program.write({ request: { $case: 'start', value } })
  expect(await ended).toBe(5)
  expect(heard.replaceAll('\r', '').split('\n')).toEqual([
    expect.stringMatching(/^vt100 \/dev\/pts\/\d+$/),
    '10 40',
    'ping',
    '20 60',
    'got ping',
    'slept',
    '^Cinterrupted',
    '',
  ])
})

onHost('images are pulled with progress, listed and removed, and what is wrong has a status', async () => {
  const { call, stream } = await serve(newFolder())
  const reference = `docker-archive:${image}`
  const pull = (wanted: messages.PullImageRequest) =>
    all(stream('PullImage', messages.PullImageRequest, messages.PullImageResponse, wanted))
  expect((await pull({ reference, policy: '' })).at(-1)?.image).toMatchObject({ reference, layers: 1 })
  const { images } = await call('ListImages', ListImagesRequest, ListImagesResponse, {})
  expect(images.map((each) => each.reference)).toEqual([reference])
  const removed = await call('RemoveImage', messages.RemoveImageRequest, messages.RemoveImageResponse, {
    name: reference,
  })
  expect(removed.references).toEqual([reference])
  await expect(pull({ reference: 'oci:/nowhere', policy: 'never' })).rejects.toMatchObject({ code: 5 })
  await expect(pull({ reference, policy: 'sometimes' })).rejects.toMatchObject({ code: 3 })
  const bad = call('RunPod', RunPodRequest, RunPodResponse, { manifest: 'kind: Pod', once: true })
  await expect(bad).rejects.toMatchObject({
    code: 3,
    details: expect.stringContaining('POD_INVALID'),
  } as Partial<ServiceError>)
})
