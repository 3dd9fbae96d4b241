import { chmod, glob, mkdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { writeImageArchive } from '@kiln/oci'
import { Fault } from '@kiln/service'
import { defaultCacheDir } from '../image/build-image.ts'
import type { StateFolder } from './state-folder.ts'

/** Name of the demonstration's pod and service, and the port it is reached at on every machine. */
export const demoPod = 'hello'
export const demoPort = 8000

const archiveName = 'pods/hello.tar'

/** A web server of busybox that says which machine it runs on. */
const podFile = `apiVersion: v1
kind: Pod
metadata:
  name: ${demoPod}
spec:
  terminationGracePeriodSeconds: 5
  containers:
    - name: web
      image: boot://${archiveName}
      ports:
        - containerPort: 80
          hostPort: ${demoPort}
      resources:
        limits:
          memory: 16Mi
          cpu: 100m
          kiln.dev/pids: 16
`

/** Pod files of the machines of `kiln up`, by name. */
export const demoPods: ReadonlyMap<string, string> = new Map([[`${demoPod}.yaml`, podFile]])

/** Makes the pod's image from the busybox that the operating system's image was made with. */
export async function stageDemoImage(state: StateFolder, environment: NodeJS.ProcessEnv): Promise<void> {
  const target = join(state.assets, archiveName)
  await mkdir(join(target, '..'), { recursive: true })
  // Process 1 ignores signals that it does not handle: without the trap a stop takes the whole grace period.
  const script = 'hostname > /www/index.html; trap "exit 0" TERM; /bin/httpd -f -p 80 -h /www & wait'
  await writeImageArchive(target, {
    layers: [
      [
        { path: 'bin/', type: 'directory' },
        { path: 'bin/busybox', content: await readFile(await findBusybox(environment)), mode: 0o755 },
        ...['sh', 'httpd', 'hostname'].map((name) => ({
          path: `bin/${name}`,
          type: 'symlink' as const,
          target: 'busybox',
        })),
        { path: 'www/', type: 'directory' as const },
        { path: 'tmp/', type: 'directory' as const, mode: 0o1777 },
      ],
    ],
    tag: demoPod,
    config: { Cmd: ['/bin/sh', '-c', script], Env: ['PATH=/bin'], WorkingDir: '/' },
  })
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
