import { copyFile, mkdir, symlink } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { buildNative } from '@kiln/linux'
import { build } from 'esbuild'

const banner =
  "import{createRequire as kilnRequire}from'node:module';const require=kilnRequire(import.meta.url);"

/** Builds `kiln-oci` as `./kiln build` lays it out, below a new folder; answers the command's path. */
export async function buildCommand(folder: string): Promise<string> {
  await mkdir(join(folder, 'bin'), { recursive: true })
  await mkdir(join(folder, 'lib'), { recursive: true })
  await build({
    entryPoints: { 'kiln-oci': resolve(import.meta.dirname, '../main.ts') },
    outdir: join(folder, 'lib'),
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    minify: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    banner: { js: banner },
    logLevel: 'silent',
  })
  await symlink(process.execPath, join(folder, 'lib/node'))
  const command = join(folder, 'bin/kiln-oci')
  await copyFile(await buildNative(folder), command)
  return command
}
