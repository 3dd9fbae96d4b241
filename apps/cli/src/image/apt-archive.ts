import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Fault } from '@kiln/service'
import { type AptSource, formatDeb822, parseDeb822, parseOneLine, sourcesForSuite } from './apt-sources.ts'
import { run } from './command.ts'
import type { Lock, LockedPackage, Recipe } from './recipe.ts'

type Say = (line: string) => void

/** apt with lists, status and cache of its own, so that neither the host's packages nor its state play a part. */
export type AptArchive = { options: string[]; debsDir: string; workDir: string }

/** Prepares the private apt state below `cacheDir` from the host's sources. Touches no network. */
export async function openArchive(cacheDir: string, suite: string): Promise<AptArchive> {
  const workDir = join(cacheDir, 'apt')
  const debsDir = join(cacheDir, 'debs')
  for (const dir of ['state/lists/partial', 'cache/archives/partial', 'etc']) {
    await mkdir(join(workDir, dir), { recursive: true })
  }
  await mkdir(debsDir, { recursive: true })
  const sources = sourcesForSuite(await hostSources('/etc/apt'), suite)
  await writeFile(join(workDir, 'etc', 'debian.sources'), formatDeb822(sources))
  await writeFile(join(workDir, 'status'), '')
  const settings = {
    'Dir::State': join(workDir, 'state'),
    'Dir::State::status': join(workDir, 'status'),
    'Dir::Cache': join(workDir, 'cache'),
    'Dir::Etc::sourcelist': join(workDir, 'etc', 'debian.sources'),
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::Etc::preferences': '/dev/null',
    'Dir::Etc::preferencesparts': '/dev/null',
    'APT::Architecture': 'amd64',
    'APT::Architectures': 'amd64',
    'APT::Install-Recommends': 'false',
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
  }
  return { options: Object.entries(settings).map(([name, value]) => `-o${name}=${value}`), debsDir, workDir }
}

async function hostSources(etcApt: string): Promise<AptSource[]> {
  const sources: AptSource[] = []
  const parts = await readdir(join(etcApt, 'sources.list.d')).catch(() => [] as string[])
  for (const file of [
    join(etcApt, 'sources.list'),
    ...parts.sort().map((name) => join(etcApt, 'sources.list.d', name)),
  ]) {
    const text = await readFile(file, 'utf8').catch(() => '')
    if (file.endsWith('.sources')) sources.push(...parseDeb822(text))
    else if (file.endsWith('.list')) sources.push(...parseOneLine(text))
  }
  return sources
}

export async function updateArchive(archive: AptArchive): Promise<void> {
  const sources = await readFile(join(archive.workDir, 'etc', 'debian.sources'), 'utf8')
  if (sources === '') {
    throw new Fault('IMAGE_NO_MIRROR', 'no Debian mirror in the apt sources of this host', {
      remedy: 'add one to /etc/apt/sources.list.d',
    })
  }
  try {
    await run('apt-get', [...archive.options, 'update', '-q'])
  } catch (cause) {
    throw new Fault('IMAGE_MIRROR_UNREACHABLE', 'cannot read the package lists of the Debian mirror', {
      cause,
    })
  }
}

/** Resolves the recipe's packages against the mirror: the newest versions, with all they depend on. */
export async function resolveLock(archive: AptArchive, recipe: Recipe): Promise<Lock> {
  const leftOut = new Set(Object.values(recipe.leftOut).flat())
  const wanted = [...recipe.packages, ...recipe.toolPackages]
  const plan = await run('apt-get', [...archive.options, '-s', 'install', ...wanted])
  const chosen = [...plan.matchAll(/^Inst (\S+) \((\S+)/gm)].map(([, name, version]) => ({
    name: name!,
    version: version!,
  }))
  const kept = chosen.filter((entry) => !leftOut.has(entry.name))
  const shown = await run('apt-cache', [
    ...archive.options,
    'show',
    ...kept.map((entry) => `${entry.name}=${entry.version}`),
  ])
  const packages = new Map<string, LockedPackage>()
  for (const stanza of shown.split('\n\n')) {
    const field = (name: string): string => new RegExp(`^${name}: (.*)$`, 'm').exec(stanza)?.[1] ?? ''
    const name = field('Package')
    const version = field('Version')
    if (!kept.some((entry) => entry.name === name && entry.version === version)) continue
    packages.set(name, {
      name,
      version,
      arch: field('Architecture'),
      sizeBytes: Number(field('Size')),
      sha256: field('SHA256'),
    })
  }
  return {
    formatVersion: 1,
    suite: recipe.suite,
    sourceDateEpoch: await archiveTime(archive),
    packages: [...packages.values()].sort((a, b) => (a.name < b.name ? -1 : 1)),
  }
}

/** When the mirror's lists were last published, in seconds: the time of the image, whatever the host's clock says. */
async function archiveTime(archive: AptArchive): Promise<number> {
  const lists = join(archive.workDir, 'state/lists')
  let newest = 0
  for (const name of await readdir(lists)) {
    if (!/_(In)?Release$/.test(name)) continue
    const date = /^Date: (.*)$/m.exec(await readFile(join(lists, name), 'utf8'))?.[1]
    const seconds = date ? Date.parse(date) / 1000 : 0
    if (seconds > newest) newest = seconds
  }
  return newest
}

/** Path of a locked package's file, named by content so that nothing stale is ever taken for it. */
export function debPath(archive: AptArchive, entry: LockedPackage): string {
  return join(archive.debsDir, `${entry.name}_${entry.sha256.slice(0, 16)}.deb`)
}

/** Makes sure that every locked .deb is in the cache with the right content; uses the network only for missing ones. */
export async function fetchPackages(archive: AptArchive, lock: Lock, say: Say): Promise<void> {
  const missing: LockedPackage[] = []
  for (const entry of lock.packages) {
    if (!(await stat(debPath(archive, entry)).catch(() => undefined))) missing.push(entry)
  }
  if (missing.length === 0) return
  say(`fetching ${missing.length} of ${lock.packages.length} packages`)
  await updateArchive(archive)
  const incoming = await mkdtemp(join(archive.workDir, 'incoming-'))
  try {
    await download(archive, missing, incoming)
    await keepExpected(archive, missing, incoming)
  } finally {
    await rm(incoming, { recursive: true, force: true })
  }
}

async function download(archive: AptArchive, missing: LockedPackage[], incoming: string): Promise<void> {
  try {
    await run(
      'apt-get',
      [...archive.options, 'download', ...missing.map((entry) => `${entry.name}=${entry.version}`)],
      {
        cwd: incoming,
      },
    )
  } catch (cause) {
    throw new Fault('IMAGE_PACKAGE_GONE', 'the mirror no longer has a package of infra/image/lock.json', {
      cause,
      remedy: './kiln image --relock takes the present versions and says which changed',
    })
  }
}

/** Moves what was downloaded into the cache, if it is what the lock says. */
async function keepExpected(archive: AptArchive, missing: LockedPackage[], incoming: string): Promise<void> {
  for (const file of await readdir(incoming)) {
    const path = join(incoming, file)
    const sha256 = await fileSha256(path)
    const entry = missing.find((candidate) => candidate.sha256 === sha256)
    if (!entry) {
      throw new Fault(
        'IMAGE_PACKAGE_CHANGED',
        `${file} from the mirror is not the file in infra/image/lock.json`,
      )
    }
    await rename(path, debPath(archive, entry))
  }
}

export async function fileSha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}
