import { chmod, copyFile, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildNative } from '@kiln/linux'
import { Fault } from '@kiln/service'
import { build } from 'esbuild'
import { directImports } from './direct-imports.ts'
import { placeParts } from './parts.ts'
import { englishOnly, lazyBuiltins, nativeAddons } from './plugins.ts'

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

/** Commands of a program under names that other tools know. */
const aliases: Readonly<Record<string, readonly [program: string, command: string]>> = {
  'ignition-apply': ['kiln-ignition', 'apply'],
  'ignition-rmcfg': ['kiln-ignition', 'rmcfg'],
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
 * Bundles every program into `dist/lib/<name>.mjs`, with what it loads only when needed in `<name>-<hash>.mjs` beside it, and a launcher
 * `dist/bin/<name>`; compiles kiln-init to `dist/native`. They need Node, but no npm and no TypeScript. Native addons lie there too.
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
    sizeBytes.set(name, await bundleProgram(libDir, name, join(options.rootDir, 'apps', entry)))
    // The OCI command line itself is the C program under another name; its bundle is the planner that it starts.
    if (Object.hasOwn(programs, name) && name !== 'kiln-oci') await writeLauncher(binDir, name)
  }
  for (const [name, [program, command]] of Object.entries(aliases)) {
    await writeLauncher(binDir, name, program, command)
  }
  await linkNode(options.rootDir, libDir)
  await copyCommand(await buildNative(distDir), join(binDir, 'kiln-oci'))
  options.say?.(
    `bundled ${[...sizeBytes].map(([name, size]) => `${name} ${Math.round(size / 1000)} kB`).join(', ')}`,
  )
  return { libDir, binDir, sizeBytes }
}

/** Bundles a program into its entry `<libDir>/<name>.mjs` and the parts that this loads; answers their size in bytes. */
export async function bundleProgram(libDir: string, name: string, entry: string): Promise<number> {
  const { outputFiles } = await build({
    entryPoints: { [name]: entry },
    outdir: libDir,
    outExtension: { '.js': '.mjs' },
    chunkNames: `${name}-[hash]`,
    write: false,
    bundle: true,
    splitting: true,
    minify: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    banner: { js: banner },
    legalComments: 'none',
    logLevel: 'silent',
    external: ['esbuild'],
    plugins: [nativeAddons(libDir), directImports(), englishOnly, lazyBuiltins],
  }).catch((cause: unknown) => {
    throw new Fault('BUNDLE_FAILED', `cannot bundle ${name}`, { cause })
  })
  await placeParts(libDir, name, outputFiles)
  return outputFiles.reduce((sum, { contents }) => sum + contents.byteLength, 0)
}

/** The launcher prefers the pinned Node beside the bundles to whatever the machine has. It starts no program but Node, unless it is a link. */
async function writeLauncher(binDir: string, name: string, program = name, command = ''): Promise<void> {
  const quick = Object.keys(quickCommands).map(
    (command) =>
      `case $1 in ${command}) shift; exec "$node" "$here/../lib/kiln-${command}.mjs" "$@" ;; esac\n`,
  )
  const script = `#!/bin/sh
here=$0
[ ! -L "$here" ] || here=$(readlink -f "$here")
case $here in */*) here=\${here%/*} ;; *) here=. ;; esac
node=$here/../lib/node
[ -x "$node" ] || node=node
${name === 'kiln' ? quick.join('') : ''}exec "$node" "$here/../lib/${program}.mjs"${command && ` ${command}`} "$@"
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
