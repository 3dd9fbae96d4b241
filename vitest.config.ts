import { readdirSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

/** One vitest project a package, named after its folder. */
const folders = ['libs', 'apps', 'tools'].flatMap((top) =>
  readdirSync(new URL(top, import.meta.url)).map((name) => `${top}/${name}`),
)

/**
 * `kiln test` gives a test that failed one more try, and then reports it as flaky: processes and clocks of a busy host are in
 * play. Pure code has no such excuse: what fails there once is a bug.
 */
function retries(root: string): number {
  if (process.env['KILN_TEST_RETRY'] !== '1') return 0
  const { kiln } = JSON.parse(readFileSync(new URL(`${root}/package.json`, import.meta.url), 'utf8')) as {
    kiln: { layer: string }
  }
  return kiln.layer === 'core' ? 0 : 1
}

const testFolder = fileURLToPath(new URL('tools/tidy/src/test-folder.ts', import.meta.url))

const projects = [...folders, 'e2e'].map((root) => ({
  test: {
    name: basename(root),
    root,
    include: ['src/**/*.test.ts'],
    setupFiles: [testFolder],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    retry: retries(root),
  },
}))

export default defineConfig({
  test: {
    projects,
    maxWorkers: 2,
    passWithNoTests: true,
    reporters: ['default', './tools/tidy/src/flaky-reporter.ts'],
  },
})
