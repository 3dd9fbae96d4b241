import type { Layer, Package, Source } from './packages.ts'

export type Problem = { path: string; message: string }

/** Lines a source file may have; a state machine may stay whole beyond the 400 that are good. */
const fileLinesMax = 600
const nativeLinesMax = 3500
const launcherLinesMax = 120

/** A line ends with a line break: what follows the last one is none. */
const lineCount = (text: string): number => text.split('\n').length - (text.endsWith('\n') ? 1 : 0)

const mayImport: Record<Layer, Layer[]> = {
  core: ['core'],
  io: ['core', 'io'],
  app: ['core', 'io'],
  kit: ['core', 'io', 'kit'],
}

/** What a core package must not reach for: the outside world comes in as arguments. */
const impure: [RegExp, string][] = [
  [
    /from ['"]node:(?!util['"]|assert['"]|buffer['"]|crypto['"]|zlib['"])/,
    'imports a Node module that does I/O',
  ],
  [/\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(/, 'reads the clock'],
  [
    /\bMath\.random\(|\b(randomBytes|randomUUID|randomInt|getRandomValues|generateKeyPair\w*)\(/,
    'draws randomness',
  ],
  [/\bset(Timeout|Interval|Immediate)\(/, 'starts a timer'],
  [/(?<![.\w])process\.(env|exit|argv|cwd)\b/, 'touches the process'],
]

const isTest = (source: Source): boolean => source.path.endsWith('.test.ts')

/** Layers: who may depend on whom, and that tests' kit does not leak into what ships. */
export function checkLayers(packages: Package[]): Problem[] {
  const byName = new Map(packages.map((one) => [one.name, one]))
  const problems: Problem[] = []
  for (const one of packages) {
    const path = `${one.folder}/package.json`
    const expected: Layer | undefined = one.folder.startsWith('apps/') ? 'app' : undefined
    if (!one.layer || !(one.layer in mayImport) || (expected && one.layer !== expected)) {
      problems.push({ path, message: `kiln.layer is ${one.layer ?? 'missing'}` })
      continue
    }
    for (const name of one.dependencies) {
      const other = byName.get(name)
      if (!other?.layer) continue
      if (!mayImport[one.layer].includes(other.layer))
        problems.push({ path, message: `${one.layer} may not depend on ${name}, which is ${other.layer}` })
    }
    for (const name of one.devDependencies) {
      if (byName.get(name)?.layer === 'app')
        problems.push({ path, message: `tests may not depend on the app ${name}` })
    }
  }
  return problems
}

/** Core packages are values and functions only. */
export function checkPurity(packages: Package[]): Problem[] {
  return packages
    .filter((one) => one.layer === 'core')
    .flatMap((one) => one.sources.filter((source) => !isTest(source)))
    .flatMap((source) =>
      impure
        .filter(([pattern]) => pattern.test(source.text))
        .map(([, message]) => ({ path: source.path, message: `core code ${message}` })),
    )
}

/** Every workspace dependency is a tsconfig reference and the other way round. */
export function checkReferences(packages: Package[]): Problem[] {
  const folderOf = new Map(packages.map((one) => [one.name, one.folder]))
  return packages.flatMap((one) => {
    const path = `${one.folder}/tsconfig.json`
    const wanted = new Set(
      [...one.dependencies, ...one.devDependencies].flatMap((name) => folderOf.get(name) ?? []),
    )
    return [
      ...[...wanted]
        .filter((folder) => !one.references.includes(folder))
        .map((folder) => ({ path, message: `misses the reference to ${folder}` })),
      ...one.references
        .filter((folder) => !wanted.has(folder))
        .map((folder) => ({ path, message: `references ${folder}, which package.json does not name` })),
    ]
  })
}

/** One subject a file: length, names that say nothing, a README in each package. */
export function checkShape(packages: Package[]): Problem[] {
  const problems: Problem[] = []
  for (const one of packages) {
    if (!one.hasReadme) problems.push({ path: one.folder, message: 'has no README.md' })
    for (const source of one.sources) {
      const lines = lineCount(source.text)
      if (lines > fileLinesMax)
        problems.push({ path: source.path, message: `has ${lines} lines, ${fileLinesMax} at most` })
      if (/(^|\/)(utils?|helpers?|common|misc)(\/|\.ts$)/.test(source.path))
        problems.push({ path: source.path, message: 'is named after nothing; name the subject' })
      if (!/^[a-z0-9./_-]+$/.test(source.path))
        problems.push({ path: source.path, message: 'is not kebab-case' })
    }
  }
  return problems
}

/** Only the process owner ends the process or reads its environment. */
export function checkProcess(packages: Package[]): Problem[] {
  const owners =
    /(^libs\/service\/|\/main\.ts$|\/(conformance|testing|bench)\/|\.test\.ts$|^apps\/cli\/|^e2e\/|^tools\/)/
  return packages
    .flatMap((one) => one.sources)
    .filter((source) => !owners.test(source.path) && /(?<![.\w])process\.(exit\(|env\b)/.test(source.text))
    .map((source) => ({
      path: source.path,
      message: 'process.exit and process.env belong to runDaemon and main.ts',
    }))
}

/** Every fault that is thrown with a code of its own has a row that says what happened and what to do. */
export function checkErrorCodes(packages: Package[], errorsPage: string): Problem[] {
  return packages
    .filter((one) => one.layer !== 'kit')
    .flatMap((one) => one.sources.filter((source) => !isTest(source)))
    .flatMap((source) =>
      [...source.text.matchAll(/new Fault\(\s*'([A-Z][A-Z0-9_]+)'/g)]
        .map((match) => match[1]!)
        .filter((code) => !errorsPage.includes(`\`${code}\``))
        .map((code) => ({ path: source.path, message: `${code} is not in docs/reference/errors.md` })),
    )
}

/** Budgets of the places where growth is a smell: native code and the launcher. */
export function checkBudgets(native: Source[], launcher: Source): Problem[] {
  const nativeLines = native.reduce((sum, source) => sum + lineCount(source.text), 0)
  const launcherLines = lineCount(launcher.text)
  return [
    ...(nativeLines > nativeLinesMax
      ? [{ path: 'libs/linux/native', message: `has ${nativeLines} lines of C, ${nativeLinesMax} at most` }]
      : []),
    ...(launcherLines > launcherLinesMax
      ? [{ path: launcher.path, message: `has ${launcherLines} lines, ${launcherLinesMax} at most` }]
      : []),
  ]
}
