import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { journalPath, madePath } from './apply-journal.ts'
import { clearState, noProgress, readState, writeCache, writeState } from './config-cache.ts'
import { findInstallDisk, type InstallDisk, releaseDisks, runDisks } from './disks-stage.ts'
import { enableBoot, firstGeneration } from './esp.ts'
import { leaveFailure } from './failure.ts'
import { type Fetched, fetchConfig } from './fetch-stage.ts'
import { runFiles } from './files-stage.ts'
import { runImage } from './image-stage.ts'
import { runKargs } from './kargs-stage.ts'
import { markerPaths, writeMarker } from './markers.ts'
import { runMount, runUmount } from './mount-stage.ts'
import { needsNetwork } from './needs-network.ts'
import type { StageName } from './options.ts'
import { fetchRelease, type Release } from './release.ts'
import { releaseKeysOf } from './release-keys.ts'
import type { InstalledSystem } from './reporter.ts'
import type { Run } from './run.ts'

/** Everything in one process, from the config to a root that can be switched to. `at` is told each stage's name. */
export async function runAll(run: Run, at: (stage: string) => void): Promise<void> {
  at('fetch')
  run.reporter.running('fetch')
  const fetched = await fetchConfig(run)
  if (run.options.cacheGiven) writeCache(fetched.config, run.options)
  await run.reporter.done('fetch')
  at('kargs')
  await runKargs(fetched.config, run)
  at('disks')
  run.reporter.running('disks')
  const { install, volumes } = await runDisks(fetched, run)
  await run.reporter.done('disks')
  at('image')
  const release = await installImage(fetched.config, install, run)
  at('mount')
  const mounted = await runMount(fetched, install, run)
  try {
    at('files')
    run.reporter.running('files')
    await startInstall(fetched, install, run)
    await runFiles(fetched, { mounted, volumes }, run)
    await finishInstall(fetched, install, release, run)
  } catch (error) {
    if (install) await leaveFailure('files', error, run)
    // The first error is the one to tell.
    await runUmount(mounted, run).catch(() => undefined)
    throw error
  }
  await runUmount(mounted, run)
  await releaseDisks(fetched, { install, volumes }, run)
  await run.reporter.done('files', release && installedSystem(release))
}

async function installImage(
  config: IgnitionConfig,
  install: InstallDisk | undefined,
  run: Run,
): Promise<Release | undefined> {
  if (!install) return undefined
  run.reporter.running('image')
  const release = await fetchRelease(await releaseKeysOf(config, run), run)
  await runImage(install, release, config, run)
  await run.reporter.done('image')
  return release
}

async function startInstall(fetched: Fetched, install: InstallDisk | undefined, run: Run): Promise<void> {
  if (!install) return
  const content = { configHash: fetched.configHash, at: run.now().toISOString() }
  await writeMarker(run.options.root, markerPaths.installing, content)
}

const installedSystem = ({ manifest }: Release): InstalledSystem => ({
  version: manifest.version,
  slot: 'a',
  generation: firstGeneration,
})

/** Makes the disk bootable, then says that the install is complete. */
export async function finishInstall(
  fetched: Fetched,
  install: InstallDisk | undefined,
  release: Release | undefined,
  run: Run,
): Promise<void> {
  if (!install) return
  // All filesystems: those of the config are as much part of what the marker promises as ROOT is.
  if (install.ROOT.device) await run.command('sync', [])
  if (release) await enableBoot(install, release, run)
  await writeMarker(run.options.root, markerPaths.installed, {
    version: release?.manifest.version ?? 'unknown',
    generation: firstGeneration,
    configHash: fetched.configHash,
    at: run.now().toISOString(),
  })
  for (const path of [markerPaths.installing, journalPath, madePath]) {
    rmSync(join(run.options.root, path), { force: true })
  }
}

/** One stage in a process of its own, as Ignition runs them; state between them is in the cache and state files. */
export async function runStage(stage: StageName, run: Run): Promise<void> {
  const { options } = run
  switch (stage) {
    case 'fetch-offline':
    case 'fetch':
      return runFetch(stage, run)
    case 'kargs':
      return runKargs(readState(options).fetched.config, run)
    case 'disks': {
      const { fetched, mounted } = readState(options)
      const { volumes } = await runDisks(fetched, run)
      writeState(fetched, { mounted, volumes }, options)
      return
    }
    case 'image': {
      const { fetched } = readState(options)
      await installImage(fetched.config, await findInstallDisk(run), run)
      return
    }
    case 'mount': {
      const { fetched, volumes } = readState(options)
      const install = await findInstallDisk(run)
      writeState(fetched, { mounted: await runMount(fetched, install, run), volumes }, options)
      return
    }
    case 'files': {
      const { fetched, ...progress } = readState(options)
      const install = await findInstallDisk(run)
      await startInstall(fetched, install, run)
      await runFiles(fetched, progress, run)
      const release = install && (await fetchRelease(await releaseKeysOf(fetched.config, run), run))
      return finishInstall(fetched, install, release, run)
    }
    case 'umount': {
      const { fetched, mounted, volumes } = readState(options)
      await runUmount(mounted, run)
      writeState(fetched, { mounted, volumes }, options)
    }
  }
}

async function runFetch(stage: 'fetch-offline' | 'fetch', run: Run): Promise<void> {
  if (run.options.clearCache) clearState(run.options)
  const offline = stage === 'fetch-offline'
  const fetcher = { ...run.fetcher, network: !offline }
  try {
    const fetched = await fetchConfig({ ...run, fetcher })
    if (offline && needsNetwork(fetched.config)) askForNetwork(run)
    writeState(fetched, noProgress, run.options)
  } catch (error) {
    if (!offline || !(error instanceof Fault) || error.code !== 'NEEDS_NETWORK') throw error
    askForNetwork(run)
  }
}

function askForNetwork(run: Run): void {
  const path = run.options.needNet
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, '')
  run.reporter.say(`fetch-offline: the network is needed; ${path} says so`)
}
