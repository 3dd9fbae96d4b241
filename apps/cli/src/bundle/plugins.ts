import { copyFile, readdir, rename } from 'node:fs/promises'
import { isBuiltin } from 'node:module'
import { dirname, join } from 'node:path'
import { Fault } from '@kiln/service'
import type { Plugin } from 'esbuild'

/**
 * Packages with a prebuilt addon look for it in their own folder. In a bundle they have none: the addon for glibc is
 * copied beside the bundle and loaded from there.
 */
export function nativeAddons(libDir: string): Plugin {
  return {
    name: 'native-addons',
    setup(bundle) {
      bundle.onLoad({ filter: /\/classic-level\/binding\.js$/ }, async ({ path }) => {
        const prebuilds = join(dirname(path), 'prebuilds', `linux-${process.arch}`)
        const file = (await readdir(prebuilds)).find(
          (name) => name.endsWith('.node') && !name.includes('musl'),
        )
        if (!file) throw new Fault('BUNDLE_FAILED', `no addon for linux-${process.arch} in ${prebuilds}`)
        const unfinished = join(libDir, `classic-level.node.${process.pid}`)
        await copyFile(join(prebuilds, file), unfinished)
        await rename(unfinished, join(libDir, 'classic-level.node'))
        return { contents: "module.exports = require('./classic-level.node')", loader: 'js' }
      })
      bundle.onResolve({ filter: /^\.\/classic-level\.node$/ }, ({ path }) => ({ path, external: true }))
    },
  }
}

/** zod brings its messages in fifty languages, 300 kB a program, and speaks only English here. */
export const englishOnly: Plugin = {
  name: 'english-only',
  setup(bundle) {
    bundle.onLoad({ filter: /\/zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: "export { default as en } from './en.js'",
      loader: 'js',
    }))
  },
}

/**
 * Node's own modules through `require`. An ES import of one reads every property of it, those too that Node loads when first used:
 * `import 'node:http'` alone brings in fetch and 72 more modules, 70 ms of processor time on a host and seconds on an emulated machine.
 */
export const lazyBuiltins: Plugin = {
  name: 'lazy-builtins',
  setup(bundle) {
    bundle.onResolve({ filter: /^[a-z_:/]+$/ }, ({ path, kind }) =>
      kind === 'import-statement' && isBuiltin(path) ? { path, namespace: 'builtin' } : undefined,
    )
    bundle.onLoad({ filter: /./, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = require('${path}')`,
      loader: 'js',
    }))
  },
}
