import { createHash } from 'node:crypto'
import { lstat, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, ImageManifest } from '@kiln/schemas'
import { syncDirectory } from '@kiln/service'
import { blobPath, digestOfFile, isBlobName } from './blobs.ts'
import { blobNames, readRecord, type StoredImage } from './store.ts'

/** What is wrong with one blob of an image. */
export type BlobProblem = { digest: Digest; problem: 'missing' | 'damaged' | 'unexpected' }

/**
 * Reads every blob of an image and recomputes its digest; `unexpected` is a blob that its manifest does not name, or the other way
 * round. An empty list is a whole image. Images of earlier versions have no blobs to look at.
 */
export async function verifyImage(blobsFolder: string, image: StoredImage): Promise<BlobProblem[]> {
  const problems: BlobProblem[] = []
  for (const { digest, size } of image.blobs ?? []) {
    const path = blobPath(blobsFolder, digest)
    const found = await lstat(path).catch(() => undefined)
    if (!found) problems.push({ digest, problem: 'missing' })
    else if (found.size !== size || (await digestOfFile(path)) !== digest)
      problems.push({ digest, problem: 'damaged' })
  }
  if (problems.length > 0 || !image.blobs) return problems
  const manifest = await readFile(blobPath(blobsFolder, image.blobs[0]!.digest), 'utf8')
  const { config, layers } = ImageManifest.parse(JSON.parse(manifest))
  const named = [config, ...layers].map(({ digest }) => digest)
  const stored = image.blobs.slice(1).map(({ digest }) => digest)
  for (const digest of new Set([...named, ...stored])) {
    if (!named.includes(digest) || !stored.includes(digest)) problems.push({ digest, problem: 'unexpected' })
  }
  return problems
}

export type Finding = {
  kind: 'damaged' | 'missing' | 'unreferenced' | 'half-made'
  /** Below the store's folder. */
  path: string
  detail: string
  repaired: boolean
}

export type CheckOptions = {
  folder: string
  /** Trees that containers run on. */
  inUse: Set<Digest>
  /** Removes what is damaged, unreferenced or half made; what is missing then has to be fetched again. */
  repair: boolean
  signal: AbortSignal
}

type Look = CheckOptions & { findings: Finding[]; images: StoredImage[]; trees: Set<string> }

/** Checks the whole store; nothing may be pulled or collected meanwhile. Trees are known by their names, their files are not read. */
export async function checkStore(options: CheckOptions): Promise<Finding[]> {
  const look: Look = {
    ...options,
    findings: [],
    images: [],
    trees: new Set(await readdir(join(options.folder, 'trees'))),
  }
  await checkRecords(look)
  await checkTrees(look)
  await checkBlobs(look)
  if (options.repair) {
    for (const name of ['records', 'trees', 'blobs']) await syncDirectory(join(options.folder, name))
  }
  return look.findings
}

async function checkRecords(look: Look): Promise<void> {
  for (const name of (await readdir(join(look.folder, 'records'))).sort()) {
    const path = join('records', name)
    if (!name.endsWith('.json')) {
      await tell(look, { kind: 'half-made', path, detail: 'a record that was not finished' })
      continue
    }
    const image = readRecord(await readFile(join(look.folder, path), 'utf8'))
    const expected = image && `${createHash('sha256').update(image.reference).digest('hex')}.json`
    if (!image || name !== expected) {
      const detail = image ? `the record of ${image.reference} under a wrong name` : 'a record that is none'
      await tell(look, { kind: 'damaged', path, detail })
    } else if (!look.trees.has(image.chainId.slice('sha256:'.length))) {
      await tell(look, { kind: 'missing', path, detail: `${image.reference} has no unpacked tree` })
    } else look.images.push(image)
  }
}

async function checkTrees(look: Look): Promise<void> {
  const named = new Set([...look.images.map(({ chainId }) => chainId), ...look.inUse])
  for (const name of [...look.trees].sort()) {
    const path = join('trees', name)
    if (!isBlobName(name))
      await tell(look, { kind: 'half-made', path, detail: 'a tree that was not finished' })
    else if (!named.has(`sha256:${name}`))
      await tell(look, { kind: 'unreferenced', path, detail: 'a tree of no image' })
  }
}

async function checkBlobs(look: Look): Promise<void> {
  const folder = join(look.folder, 'blobs')
  const owners = new Map<string, string>()
  for (const image of look.images) {
    for (const name of blobNames(image)) owners.set(name, image.reference)
  }
  const found = (await readdir(folder)).sort()
  for (const name of found) {
    look.signal.throwIfAborted()
    const path = join('blobs', name)
    const owner = owners.get(name)
    if (!isBlobName(name)) await tell(look, { kind: 'half-made', path, detail: 'a blob that is not whole' })
    else if ((await digestOfFile(join(folder, name))) !== `sha256:${name}`) {
      const detail = owner === undefined ? 'a blob of no image' : `fetch ${owner} again`
      await tell(look, { kind: 'damaged', path, detail })
    } else if (owner === undefined)
      await tell(look, { kind: 'unreferenced', path, detail: 'a blob of no image' })
  }
  for (const [name, owner] of owners) {
    // Nothing here can bring it back.
    const detail = `fetch ${owner} again`
    if (!found.includes(name))
      look.findings.push({ kind: 'missing', path: join('blobs', name), detail, repaired: false })
  }
}

async function tell(look: Look, finding: Omit<Finding, 'repaired'>): Promise<void> {
  look.findings.push({ ...finding, repaired: look.repair })
  if (!look.repair) return
  const path = join(look.folder, finding.path)
  const doomed = join(look.folder, 'trees', `new-doomed-${finding.path.replaceAll('/', '-')}`)
  // A tree with a name is whole: it loses its name before its files.
  await rename(path, doomed)
  await rm(doomed, { recursive: true, force: true })
}
