import { execFileSync } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { exportDockerArchive, exportLayout } from './image-export.ts'
import { openArchive } from './image-source.ts'
import { writeImageArchive } from './image-writer.ts'
import { openImageStore } from './store.ts'

const hasSkopeo = ((): boolean => {
  try {
    execFileSync('skopeo', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()
if (!hasSkopeo) console.log("skipped: skopeo is not installed (Debian's package of that name)")

const skopeo = (...args: string[]): string =>
  execFileSync('skopeo', ['--insecure-policy', '--override-arch', 'amd64', ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  })

test.skipIf(!hasSkopeo)(
  'skopeo reads what is exported, finds the same digests and checks every layer',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'kiln-export-'))
    const path = join(folder, 'image.tar')
    const layers = [[{ path: 'a', content: 'one'.repeat(999) }], [{ path: 'b', content: 'two' }]]
    await writeImageArchive(path, { layers, config: { Cmd: ['/a'] } })
    const store = await openImageStore({ folder: join(folder, 'store'), syncTree: async () => undefined })
    const image = await store.import('x', await openArchive({ path, architecture: 'amd64' }))
    const { signal } = new AbortController()
    const wanted = { blobsFolder: store.blobs.folder, image, signal }
    await exportLayout({ ...wanted, target: join(folder, 'out'), name: 'v1' })
    await exportDockerArchive({ ...wanted, target: join(folder, 'out.tar'), name: 'team/x:v1' })
    const inspect = (reference: string): { Digest: string; Layers: string[] } =>
      JSON.parse(skopeo('inspect', reference))
    expect(inspect(`oci:${join(folder, 'out')}:v1`).Digest).toBe(image.digest)
    const archive = `docker-archive:${join(folder, 'out.tar')}`
    expect(inspect(`${archive}:docker.io/team/x:v1`).Layers).toEqual(image.config.rootfs.diff_ids)
    skopeo('copy', archive, `dir:${join(folder, 'from-archive')}`)
    skopeo('copy', `oci:${join(folder, 'out')}:v1`, `dir:${join(folder, 'from-layout')}`)
  },
  120_000,
)
