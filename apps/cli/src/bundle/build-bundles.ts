import { chmod, copyFile, mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { buildNative } from '@kiln/linux'
import { Fault } from '@kiln/service'
import { build, type Plugin } from 'esbuild'

/** Our programs and the package each starts in. */
export const programs: Readonly<Record<string, string>> = {
  kiln: 'cli',
  'kiln-boot': 'boot',
  'kiln-ignition': 'ignition',
  'kiln-kv': 'kv',
  'kiln-oci': 'oci-cli',
  'kiln-runtime': 'runtime',
  'kiln-update': 'update',
}

/** Commands of `kiln` that are asked for so often that each has a bundle of its own, and what it starts with. */
export const quickCommands: Readonly<Record<string, string>> = {
  butane: 'ignition/src/butane/main.ts',
}

export type BundleOptions = {
  /** Root of the repository. */
  rootDir: string
  /** Default `dist`. */
  distDir?: string
  say?: (line: string) => void
}

export type Bundles = { libDir: string; binDir: string; sizeBytes: Map<string, number> }

/** ES modules have no `require`; dependencies in CommonJS that ask for Node's own modules get one. */
const banner =
  "import{createRequire as kilnRequire}from'node:module';const require=kilnRequire(import.meta.url);"

/**
 * Bundles every program into one file `dist/lib/<name>.mjs` with a launcher `dist/bin/<name>`, and compiles kiln-init to
 * `dist/native`. They need Node, but no npm and no TypeScript. Native addons lie beside the bundles.
 */
export async function buildBundles(options: BundleOptions): Promise<Bundles> {
  const distDir = options.distDir ?? join(options.rootDir, 'dist')
  const libDir = join(distDir, 'lib')
  const binDir = join(distDir, 'bin')
  await mkdir(libDir, { recursive: true })
  await mkdir(binDir, { recursive: true })
  const sizeBytes = new Map<string, number>()
  const entries = [
    ...Object.entries(programs).map(([name, app]) => [name, `${app}/src/main.ts`] as const),
    ...Object.entries(quickCommands).map(([name, entry]) => [`kiln-${name}`, entry] as const),
  ]
  for (const [name, entry] of entries) {
    const outfile = join(libDir, `${name}.mjs`)
    const unfinished = `${outfile}.${process.pid}`
    const result = await build({
      entryPoints: [join(options.rootDir, 'apps', entry)],
      outfile: unfinished,
      bundle: true,
      minify: true,
      platform: 'node',
      target: 'node24',
      format: 'esm',
      banner: { js: banner },
      legalComments: 'none',
      logLevel: 'silent',
      metafile: true,
      external: ['esbuild'],
      plugins: [nativeAddons(libDir), englishOnly],
    }).catch((cause: unknown) => {
      throw new Fault('BUNDLE_FAILED', `cannot bundle ${name}`, { cause })
    })
    sizeBytes.set(name, Object.values(result.metafile.outputs)[0]?.bytes ?? 0)
    await rename(unfinished, outfile)
    // The OCI command line itself is the C program under another name; its bundle is the planner that it starts.
    if (Object.hasOwn(programs, name) && name !== 'kiln-oci') await writeLauncher(binDir, name)
  }
  await linkNode(options.rootDir, libDir)
  await copyCommand(await buildNative(distDir), join(binDir, 'kiln-oci'))
  options.say?.(
    `bundled ${[...sizeBytes].map(([name, size]) => `${name} ${Math.round(size / 1000)} kB`).join(', ')}`,
  )
  return { libDir, binDir, sizeBytes }
}

/** The launcher prefers the pinned Node beside the bundles to whatever the machine has. */
async function writeLauncher(binDir: string, name: string): Promise<void> {
  const quick = Object.keys(quickCommands).map(
    (command) =>
      `case $1 in ${command}) shift; exec "$node" "$here/../lib/kiln-${command}.mjs" "$@" ;; esac\n`,
  )
  const script = `#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
node=$here/../lib/node
[ -x "$node" ] || node=node
${name === 'kiln' ? quick.join('') : ''}exec "$node" "$here/../lib/${name}.mjs" "$@"
`
  await writeFile(join(binDir, name), script)
  await chmod(join(binDir, name), 0o755)
}

/** A file of its own rather than a link: what runs it may look at its name, and no link may be followed to another one. */
async function copyCommand(program: string, output: string): Promise<void> {
  const unfinished = `${output}.${process.pid}`
  await copyFile(program, unfinished)
  await rename(unfinished, output)
}

async function linkNode(rootDir: string, libDir: string): Promise<void> {
  const arch = process.arch === 'arm64' ? 'arm64' : 'x64'
  const unfinished = join(libDir, `node.${process.pid}`)
  await rm(unfinished, { force: true })
  await symlink(join(rootDir, `node_modules/node-linux-${arch}/bin/node`), unfinished)
  await rename(unfinished, join(libDir, 'node'))
}

/**
 * Packages with a prebuilt addon look for it in their own folder. In a bundle they have none: the addon for glibc is
 * copied beside the bundle and loaded from there.
 */
function nativeAddons(libDir: string): Plugin {
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
const englishOnly: Plugin = {
  name: 'english-only',
  setup(bundle) {
    bundle.onLoad({ filter: /\/zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: "export { default as en } from './en.js'",
      loader: 'js',
    }))
  },
}
