import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'

/**
 * Setup of each test file: what it makes in the folder for temporary files is in a folder of its own, which goes when the file has
 * ended. One below which something is still mounted stays: who removes it would remove what is behind the mount.
 */
const outer = tmpdir()
const folder = mkdtempSync(join(outer, 'kt-'))
// Tests that run something as another user reach their own folders through it.
chmodSync(folder, 0o755)
process.env['TMPDIR'] = folder

afterAll(() => {
  process.env['TMPDIR'] = outer
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
  if (mounts.includes(` ${folder}/`)) return
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
})
