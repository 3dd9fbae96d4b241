import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Plugin, PluginBuild } from 'esbuild'

/** Where a public name of a package comes from: the file, and what it is called there. */
type Origin = { file: string; name: string }

const publicNames = /export\s*\{([^}]*)\}\s*from\s*'(\.[^']*)'/g
const namedImports = /\b(import|export)\s*\{([^}]*)\}\s*from\s*'(@kiln\/[\w-]+)'/g

/**
 * Imports from a package of ours become imports from the files that its index names. esbuild decides file by file what a
 * program loads at its start, and takes an index to lead to everything behind it that any part of the program uses: with
 * one command that needs a pod's schema, a program would load it at every start.
 */
export function directImports(): Plugin {
  return {
    name: 'direct-imports',
    setup(bundle) {
      const indexes = new Map<string, Promise<Map<string, Origin>>>()
      bundle.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        const text = await readFile(path, 'utf8')
        const packages = new Set([...text.matchAll(namedImports)].map(([, , , name]) => name!))
        const origins = new Map<string, Map<string, Origin>>()
        for (const name of packages) {
          if (!indexes.has(name)) indexes.set(name, readIndex(name, dirname(path), bundle))
          origins.set(name, await indexes.get(name)!)
        }
        const contents = text.replaceAll(namedImports, (whole, verb: string, names: string, from: string) =>
          direct(verb, names, origins.get(from)!, whole),
        )
        return { contents, loader: 'ts' }
      })
    },
  }
}

async function readIndex(
  name: string,
  resolveDir: string,
  bundle: PluginBuild,
): Promise<Map<string, Origin>> {
  const { path } = await bundle.resolve(name, { resolveDir, kind: 'import-statement' })
  const origins = new Map<string, Origin>()
  if (!path.endsWith('.ts')) return origins
  for (const [, names, from] of (await readFile(path, 'utf8')).matchAll(publicNames)) {
    for (const { type, there, here } of listed(names!)) {
      if (!type) origins.set(here, { file: join(dirname(path), from!), name: there })
    }
  }
  return origins
}

/** The statement as one for each file; as it was when the index does not say where a name comes from. */
function direct(verb: string, names: string, origins: Map<string, Origin>, whole: string): string {
  const statements: string[] = []
  for (const { type, there, here } of listed(names)) {
    if (type) continue
    const origin = origins.get(there)
    if (!origin) return whole
    statements.push(`${verb} { ${origin.name} as ${here} } from ${JSON.stringify(origin.file)}`)
  }
  // One line, so that the lines of what follows stay what they are.
  return statements.join('; ') + '\n'.repeat(whole.split('\n').length - 1)
}

/** Names between braces: `a`, `a as b`, `type A`. */
const listed = (names: string): { type: boolean; there: string; here: string }[] =>
  names
    .replaceAll(/\/\/.*$/gm, '')
    .split(',')
    .map((each) => each.trim())
    .filter((each) => each !== '')
    .map((each) => {
      const type = each.startsWith('type ')
      const [there, here] = each.replace(/^type\s+/, '').split(/\s+as\s+/)
      return { type, there: there!, here: here ?? there! }
    })
