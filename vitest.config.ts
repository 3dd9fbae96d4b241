import { readdirSync } from 'node:fs'
import { defineConfig } from 'vitest/config'

/** One vitest project a package, named after its folder. */
const projects = ['libs', 'apps', 'tools'].flatMap((top) =>
  readdirSync(new URL(top, import.meta.url)).map((name) => ({
    test: {
      name,
      root: `${top}/${name}`,
      include: ['src/**/*.test.ts'],
      testTimeout: 60_000,
      hookTimeout: 60_000,
    },
  })),
)

export default defineConfig({ test: { projects, maxWorkers: 2, passWithNoTests: true } })
