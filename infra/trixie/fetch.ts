/**
 * Programs that Debian 12 has too old, from Debian 13's packages, unpacked into a cache folder and never installed.
 *
 *   node infra/trixie/fetch.ts etcd-client     prints the folder; the program is FOLDER/usr/bin/etcdctl
 *
 * The mirror, proxies and keys are those of this system's own apt configuration; only the suite is another.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const suite = 'trixie'
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'
/** Package lists older than this are fetched again before a new package is. */
const listsAgeMaxMs = 24 * 3600 * 1000
const timeoutMs = 10 * 60_000

export type TrixieOptions = { cacheHome?: string | undefined; home?: string }

/** Folder with the unpacked content of a package; fetched at the first call, from the cache afterwards. */
export async function trixiePackage(name: string, options: TrixieOptions = {}): Promise<string> {
  if (!/^[a-z0-9][a-z0-9+.-]+$/.test(name)) throw new Error(`${JSON.stringify(name)} is no package name`)
  const cache = join(options.cacheHome || join(options.home ?? homedir(), '.cache'), 'kiln', suite)
  const folder = join(cache, 'packages', name)
  if (existsSync(folder)) return folder
  const apt = await prepareApt(cache)
  const work = join(cache, `download-${name}-${process.pid}`)
  await mkdir(work, { recursive: true })
  try {
    await run('apt-get', [...apt, 'download', name], { cwd: work, timeout: timeoutMs })
    const deb = (await readdir(work)).find((file) => file.endsWith('.deb'))
    if (!deb) throw new Error(`apt-get downloaded nothing for ${name}`)
    const unpacked = join(work, 'unpacked')
    await run('dpkg', ['-x', join(work, deb), unpacked], { timeout: timeoutMs })
    await mkdir(join(cache, 'packages'), { recursive: true })
    await rename(unpacked, folder).catch((error: NodeJS.ErrnoException) => {
      // Somebody else was faster: theirs is as good.
      if (!existsSync(folder)) throw error
    })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return folder
}

/** An apt state of our own with one source; answers the options that select it. */
async function prepareApt(cache: string): Promise<string[]> {
  const state = join(cache, 'apt')
  await mkdir(join(state, 'lists/partial'), { recursive: true })
  await mkdir(join(state, 'archives/partial'), { recursive: true })
  const sources = join(state, 'sources.list')
  const line = `deb [signed-by=${keyring}] ${await debianMirror()} ${suite} main\n`
  const options = [
    ['Dir::State', state],
    ['Dir::State::lists', join(state, 'lists')],
    ['Dir::Cache', state],
    ['Dir::Etc::sourcelist', sources],
    ['Dir::Etc::sourceparts', '/dev/null'],
    ['Dir::Etc::preferencesparts', '/dev/null'],
    ['Acquire::Languages', 'none'],
    ['APT::Sandbox::User', 'root'],
  ].flatMap(([key, value]) => ['-o', `${key}=${value}`])
  const isSame = (await readFile(sources, 'utf8').catch(() => '')) === line
  const stamp = join(state, 'updated')
  const age =
    Date.now() -
    (await stat(stamp).then(
      (found) => found.mtimeMs,
      () => 0,
    ))
  if (isSame && age < listsAgeMaxMs) return options
  await writeFile(sources, line)
  await run('apt-get', [...options, 'update'], { timeout: timeoutMs })
  await writeFile(stamp, '')
  return options
}

/** Where this system gets its own release from. */
async function debianMirror(): Promise<string> {
  const release = await readFile('/etc/os-release', 'utf8')
  const codename = /^VERSION_CODENAME=(.*)$/m.exec(release)?.[1]
  const { stdout } = await run('apt-get', [
    'indextargets',
    '--format',
    '$(RELEASE) $(COMPONENT) $(REPO_URI)',
    'Created-By: Packages',
  ])
  for (const line of stdout.split('\n')) {
    const [suiteOfLine, component, uri] = line.split(' ')
    if (suiteOfLine === codename && component === 'main' && uri) return uri
  }
  throw new Error(`apt has no source for ${codename}: cannot tell where Debian's packages are`)
}

if (import.meta.main) {
  const [name, ...rest] = process.argv.slice(2)
  if (!name || rest.length > 0 || name.startsWith('-')) {
    process.stderr.write('usage: node infra/trixie/fetch.ts PACKAGE\n')
    process.exit(name === '--help' ? 0 : 2)
  }
  try {
    const folder = await trixiePackage(name, { cacheHome: process.env['XDG_CACHE_HOME'] })
    process.stdout.write(`${resolve(folder)}\n`)
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string }
    process.stderr.write(`fetching ${name} from ${suite} failed: ${stderr?.trim() || message}\n`)
    process.exit(1)
  }
}
