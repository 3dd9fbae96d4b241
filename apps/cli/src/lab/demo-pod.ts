import { chmod, glob, mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { defaultCacheDir } from '../image/build-image.ts'
import { buildHelloImage } from './hello-image.ts'
import type { StateFolder } from './state-folder.ts'

/** Name of the demonstration's pod and service, and the port it is reached at on every machine. */
export const demoPod = 'hello'
export const demoPort = 8000

const archiveName = 'pods/hello.tar'

/** Answers on its port of every machine with the machine's name, as few rights as it can have. */
const podFile = `apiVersion: v1
kind: Pod
metadata:
  name: ${demoPod}
  labels:
    kiln.dev/service: ${demoPod}
spec:
  restartPolicy: Always
  terminationGracePeriodSeconds: 5
  containers:
    - name: web
      image: boot://${archiveName}
      env:
        - name: KILN_MACHINE
          valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
        - name: KILN_POD
          valueFrom: { fieldRef: { fieldPath: metadata.name } }
      ports:
        - name: http
          containerPort: ${demoPort}
          hostPort: ${demoPort}
      resources:
        limits: { memory: 32Mi, cpu: 500m, kiln.dev/pids: 32 }
      securityContext:
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: { drop: [ALL] }
`

/** Pod files of the machines of `kiln up`, by name. */
export const demoPods: ReadonlyMap<string, string> = new Map([[`${demoPod}.yaml`, podFile]])

/** Makes the pod's image from the busybox that the operating system's image was made with. */
export async function stageDemoImage(state: StateFolder, environment: NodeJS.ProcessEnv): Promise<void> {
  const target = join(state.assets, archiveName)
  await mkdir(join(target, '..'), { recursive: true })
  await buildHelloImage(target, await findBusybox(environment))
  await chmod(target, 0o644)
}

async function findBusybox(environment: NodeJS.ProcessEnv): Promise<string> {
  const found: { path: string; at: number }[] = []
  for await (const path of glob('base-*/tools/usr/bin/busybox', { cwd: defaultCacheDir(environment) })) {
    const full = join(defaultCacheDir(environment), path)
    found.push({ path: full, at: (await stat(full)).mtimeMs })
  }
  const newest = found.sort((a, b) => b.at - a.at)[0]
  if (!newest) throw new Fault('IMAGE_CACHE', 'the image cache has no busybox; build the image first')
  return newest.path
}
