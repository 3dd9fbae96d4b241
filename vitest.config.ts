import { readdirSync } from 'node:fs'
import { basename } from 'node:path'
import { defineConfig } from 'vitest/config'

/** One vitest project a package, named after its folder. */
const folders = ['libs', 'apps', 'tools'].flatMap((top) =>
  readdirSync(new URL(top, import.meta.url)).map((name) => `${top}/${name}`),
)
const projects = [...folders, 'e2e'].map((root) => ({
  test: {
    name: basename(root),
    root,
    include: ['src/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
}))

export default defineConfig({ test: { projects, maxWorkers: 2, passWithNoTests: true } })
