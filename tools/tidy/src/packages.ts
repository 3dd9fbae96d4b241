import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'

export type Layer = 'core' | 'io' | 'app' | 'kit'

/** One workspace package as the checks see it. */
export type Package = {
  /** `libs/raft` */
  folder: string
  name: string
  layer: Layer | undefined
  dependencies: string[]
  devDependencies: string[]
  /** Folders that the tsconfig references, relative to the root. */
  references: string[]
  hasReadme: boolean
  sources: Source[]
}

export type Source = { path: string; text: string }

/** Reads every package of the workspace below `root`. */
export function readPackages(root: string): Package[] {
  const folders = [...['libs', 'apps', 'tools'].flatMap((top) => subfolders(root, top)), 'e2e']
  return folders
    .filter((folder) => existsSync(join(root, folder, 'package.json')))
    .map((folder) => readPackage(root, folder))
}

function readPackage(root: string, folder: string): Package {
  const manifest = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8'))
  const tsconfig = JSON.parse(readFileSync(join(root, folder, 'tsconfig.json'), 'utf8'))
  return {
    folder,
    name: manifest.name,
    layer: manifest.kiln?.layer,
    dependencies: Object.keys(manifest.dependencies ?? {}),
    devDependencies: Object.keys(manifest.devDependencies ?? {}),
    references: (tsconfig.references ?? []).map((reference: { path: string }) =>
      relative(root, join(root, folder, reference.path)),
    ),
    hasReadme: existsSync(join(root, folder, 'README.md')),
    sources: readSources(root, join(folder, 'src')),
  }
}

/** TypeScript and C files below a folder, generated ones left out. */
export function readSources(root: string, folder: string): Source[] {
  if (!existsSync(join(root, folder))) return []
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((path) => join(folder, path))
    .filter((path) => /\.(ts|tsx|c|h)$/.test(path) && !path.includes('/generated/'))
    .filter((path) => statSync(join(root, path)).isFile())
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }))
}

function subfolders(root: string, top: string): string[] {
  if (!existsSync(join(root, top))) return []
  return readdirSync(join(root, top)).map((name) => `${top}/${name}`)
}
