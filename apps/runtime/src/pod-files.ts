import { type FSWatcher, watch } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type PodManifest, parsePod } from '@kiln/schemas'
import { Fault, type Log } from '@kiln/service'
import { type Document, parseAllDocuments } from 'yaml'

/** What its source has under a name, and is no pod. */
export type PodProblem = { name: string; message: string }
/** A file that is no pod, or not one that runs here; shown to the operator under a name made from the file's. */
export type FileProblem = PodProblem & { file: string }
export type PodFiles = { pods: Map<string, { manifest: PodManifest; file: string }>; problems: FileProblem[] }

const fileBytesMax = 1 << 20
const rescanMs = 15_000

/** Reads the pods of one YAML or JSON text; several documents are several pods. */
export function parsePodText(text: string): { pods: PodManifest[]; problems: string[] } {
  const pods: PodManifest[] = []
  const problems: string[] = []
  if (text.length > fileBytesMax) return { pods, problems: [`is larger than ${fileBytesMax} bytes`] }
  const documents = parseAllDocuments(text, { uniqueKeys: true })
  for (const document of 'empty' in documents ? [] : documents) {
    const broken = document.errors.map((error) => error.message.split('\n')[0] ?? 'is not YAML')
    problems.push(...broken)
    if (broken.length > 0 || document.contents === null) continue
    const parsed = parsePod(contentOf(document, problems))
    problems.push(...parsed.problems.map((problem) => `${problem.path} ${problem.message}`))
    if (parsed.pod) pods.push(parsed.pod)
  }
  if (pods.length === 0 && problems.length === 0) problems.push('holds no pod')
  return { pods, problems }
}

/** Reads the pods of one file, `-` being standard input, for a command; the first problem is the end. */
export async function readPods(file: string): Promise<PodManifest[]> {
  const text = await readFile(file === '-' ? '/dev/stdin' : file, 'utf8').catch((cause: unknown) => {
    throw new Fault('POD_NOT_FOUND', `cannot read ${file}`, { cause })
  })
  const { pods, problems } = parsePodText(text)
  if (problems.length > 0) throw new Fault('POD_INVALID', problems.join('; '))
  return pods
}

/** Aliases may repeat content, but not without bound. */
function contentOf(document: Document.Parsed, problems: string[]): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 })
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error))
    return undefined
  }
}

/** Reads the pod files of a folder; a folder that is not there holds none. */
export async function readPodFiles(folder: string): Promise<PodFiles> {
  const result: PodFiles = { pods: new Map(), problems: [] }
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  for (const name of names.filter((each) => /^[^.].*\.(ya?ml|json)$/.test(each)).sort()) {
    const file = join(folder, name)
    const { pods, problems } = await readFile(file, 'utf8').then(parsePodText, (error: unknown) => ({
      pods: [] as PodManifest[],
      problems: [`cannot be read: ${error instanceof Error ? error.message : String(error)}`],
    }))
    if (problems.length > 0) {
      result.problems.push({ name: problemName(name), file, message: `${name}: ${problems.join('; ')}` })
      continue
    }
    for (const manifest of pods) {
      const other = result.pods.get(manifest.metadata.name)
      if (other)
        result.problems.push({
          name: problemName(name),
          file,
          message: `${name}: pod ${manifest.metadata.name} is also in ${other.file}`,
        })
      else result.pods.set(manifest.metadata.name, { manifest, file })
    }
  }
  return result
}

/** A name for the status of what has none, or one that no pod may have. */
export const problemName = (file: string): string =>
  file
    .toLowerCase()
    .replace(/\.(ya?ml|json)$/, '')
    .replace(/[^a-z0-9-]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 63)
    .replace(/-$/, '') || 'file'

/** Reads the folder now, when it changes, and every now and then as notifications may be lost. */
export async function followPodFiles(
  folder: string,
  log: Log,
  changed: (files: PodFiles) => void,
): Promise<{ close(): void }> {
  let scanning = false
  let again = false
  let watcher: FSWatcher | undefined
  let soon: NodeJS.Timeout | undefined
  const scan = async (): Promise<void> => {
    again = true
    if (scanning) return
    scanning = true
    while (again) {
      again = false
      try {
        changed(await readPodFiles(folder))
        watcher ??= watchFolder()
      } catch (error) {
        log.error({ folder, error }, 'pod files cannot be read')
      }
    }
    scanning = false
  }
  const watchFolder = (): FSWatcher | undefined => {
    try {
      const opened = watch(folder, () => {
        clearTimeout(soon)
        soon = setTimeout(() => void scan(), 200)
      })
      opened.on('error', () => {
        opened.close()
        watcher = undefined
      })
      return opened
    } catch {
      // The folder is not there yet.
      return undefined
    }
  }
  await scan()
  const timer = setInterval(() => void scan(), rescanMs)
  return {
    close: () => {
      clearInterval(timer)
      clearTimeout(soon)
      watcher?.close()
    },
  }
}
