import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RunCommand } from '../commands.ts'
import { type Fetcher, type FetchSettings, fetchUrl } from '../fetch-resource.ts'
import type { PlatformPorts } from './platform.ts'

const labelsDefault = '/dev/disk/by-label'

/** The real ports: metadata services over http, volumes mounted read-only for as long as one file is read. */
export function platformPorts(of: {
  fetcher: Fetcher
  settings: FetchSettings
  command: RunCommand
  labels?: string
}): PlatformPorts {
  const { fetcher, command, labels = labelsDefault } = of
  // A metadata service is on the machine's own link, and its answers are for this machine alone.
  const settings = { ...of.settings, proxy: undefined }
  return {
    command,
    get: (url, headers = {}, method = 'GET') => fetchUrl(url, { headers, method }, fetcher, settings),
    async readVolume(label, path) {
      const device = findLabel(labels, label)
      if (device === undefined) return undefined
      const folder = mkdtempSync(join(tmpdir(), 'kiln-volume-'))
      await command('mount', ['-o', 'ro,nosuid,nodev,noexec', '-t', 'auto', device, folder])
      try {
        const file = join(folder, path)
        return existsSync(file) ? readFileSync(file) : undefined
      } finally {
        await command('umount', [folder])
        rmSync(folder, { recursive: true, force: true })
      }
    },
  }
}

/** The device of a label, which may end with `*` where only its start is known. */
function findLabel(folder: string, label: string): string | undefined {
  const names = existsSync(folder) ? readdirSync(folder).sort() : []
  const name = label.endsWith('*')
    ? names.find((each) => each.startsWith(label.slice(0, -1)))
    : names.find((each) => each === label)
  return name && join(folder, name)
}
