import { chmod, chown, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { PodConfigMap } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** As in Kubernetes: what one config map may hold. */
const bytesMax = 1 << 20
const keysMax = 256

/**
 * Writes the files of a config map into a folder that is not there yet. Keys are the files of `<configMaps>/<name>/`; names with a dot in
 * front are no keys.
 */
export async function writeConfigMap(
  configMaps: string,
  wanted: PodConfigMap,
  folder: string,
  gid: number,
): Promise<void> {
  const content = await readConfigMap(join(configMaps, wanted.name), wanted)
  const half = `${folder}.new`
  await rm(half, { recursive: true, force: true })
  await mkdir(half, { recursive: true })
  const items = wanted.items ?? [...content.keys()].map((key) => ({ key, path: key, mode: undefined }))
  for (const { key, path, mode } of items) {
    const bytes = content.get(key)
    if (bytes === undefined) {
      if (wanted.optional) continue
      throw new Fault('POD_CONFIG_MAP_MISSING', `config map ${wanted.name} has no key ${key}`)
    }
    const file = join(half, path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, bytes)
    await chown(file, 0, gid)
    const bits = mode ?? wanted.defaultMode
    // Whoever has the volume's group may read what its owner may.
    await chmod(file, gid === 0 ? bits : bits | ((bits & 0o400) >> 3))
  }
  await chmod(half, 0o755)
  await rename(half, folder)
}

async function readConfigMap(
  folder: string,
  wanted: { name: string; optional: boolean },
): Promise<Map<string, Buffer>> {
  const content = new Map<string, Buffer>()
  try {
    let bytes = 0
    for (const key of (await readdir(folder)).filter((name) => !name.startsWith('.')).sort()) {
      const file = await stat(join(folder, key))
      if (!file.isFile()) continue
      bytes += file.size
      if (bytes > bytesMax || content.size >= keysMax)
        throw new Fault(
          'POD_CONFIG_MAP_INVALID',
          `config map ${wanted.name} has more than ${bytesMax} bytes or ${keysMax} keys`,
        )
      content.set(key, await readFile(join(folder, key)))
    }
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    if (missing && wanted.optional) return content
    throw new Fault('POD_CONFIG_MAP_MISSING', `config map ${wanted.name} cannot be read from ${folder}`, {
      cause,
    })
  }
  return content
}
