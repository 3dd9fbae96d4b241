import { randomUUID } from 'node:crypto'
import { type PodManifest, parsePod } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** A pod of one container that is run once: what `run IMAGE -- ARGS` means. The arguments replace the image's. */
export function manifestOfImage(image: string | undefined, args: string[], name?: string): PodManifest {
  if (image === undefined) throw new Fault('REQUEST_INVALID', 'name an image, or a file by --pod-manifest')
  const last = image.replace(/@.*$/, '').split('/').at(-1) ?? ''
  const app =
    last
      .replace(/(:[^:]*|\.tar)$/, '')
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-+|-+$/g, '')
      .slice(0, 30) || 'app'
  const rest = args[0] === '--' ? args.slice(1) : args
  const { pod, problems } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: name ?? `${app}-${randomUUID().slice(0, 8)}` },
    spec: {
      restartPolicy: 'Never',
      containers: [{ name: app, image, ...(rest.length > 0 ? { args: rest } : {}) }],
    },
  })
  if (pod) return pod
  throw new Fault('POD_INVALID', problems.map(({ path, message }) => `${path} ${message}`).join('; '))
}
