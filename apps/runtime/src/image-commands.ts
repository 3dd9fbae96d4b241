import { resolve } from 'node:path'
import type { Finding } from '@kiln/oci'
import { Fault } from '@kiln/service'
import { type Command, Option } from 'commander'
import type { ImageEntry, ImageProblems } from './image-service.ts'
import { durationMs, type ImageField, imageFields, imageTable, sizeText, sortImages } from './image-table.ts'
import { addTrustCommands } from './trust-commands.ts'

export type ImagePorts = {
  print(line: string): void
  complain(line: string): void
  /** Shows how work goes on, in place of what was shown before; absent where nobody looks. */
  status?: ((text: string) => void) | undefined
  /** GET of all images. */
  list(): Promise<ImageEntry[]>
  /** POST below `/v1/images/`. */
  ask<T>(what: string, body: object, onProgress?: (progress: unknown) => void): Promise<T>
  /** Ends the command line with this code. */
  exit(code: number): void
}

type Progress = { layers: number; layersDone: number; bytes: number; bytesDone: number }

/** `--insecure-options` as rkt has it: each check that can be turned off has a name. */
export const insecureOption = (): Option =>
  new Option('--insecure-options <name...>', 'checks to leave out by name: image (its signature)').choices([
    'image',
  ])

/** `kiln-runtime image ...` */
export function addImageCommands(program: Command, ports: ImagePorts): void {
  const image = program.command('image').description('images of this machine')
  addFetch(image, ports)
  addList(image, ports)
  addRemovals(image, ports)
  addChecks(image, ports)
  addOutputs(image, ports)
  addTrustCommands(image, ports)
}

function addFetch(image: Command, ports: ImagePorts): void {
  image
    .command('fetch <image...>')
    .description('bring images to this machine; prints their digests')
    .addOption(
      new Option('--pull-policy <policy>', 'never: only what is here; new: what is not; update: always ask')
        .choices(['never', 'new', 'update'])
        .default('new'),
    )
    .addOption(insecureOption())
    .option('--json', 'as JSON')
    .action(
      async (
        references: string[],
        options: { pullPolicy: string; insecureOptions?: string[]; json?: boolean },
      ) => {
        const insecure = options.insecureOptions?.includes('image') ?? false
        for (const reference of references) {
          const body = { reference, policy: options.pullPolicy, insecure }
          const entry = await ports.ask<ImageEntry>('fetch', body, (progress) =>
            ports.status?.(progressText(reference, progress as Progress)),
          )
          ports.status?.('')
          ports.print(options.json ? JSON.stringify(entry, undefined, 2) : entry.digest)
        }
      },
    )
}

export function progressText(reference: string, { layers, layersDone, bytes, bytesDone }: Progress): string {
  const percent = Math.floor((100 * bytesDone) / Math.max(1, bytes))
  const width = 20
  const done = Math.floor((width * percent) / 100)
  const bar = `${'='.repeat(done)}${' '.repeat(width - done)}`
  return `${reference} [${bar}] ${percent}% of ${sizeText(bytes)}, layer ${layersDone}/${layers}`
}

function readFields(text: string): ImageField[] {
  return text.split(',').map((name) => {
    const field = imageFields.find((each) => each === name)
    if (!field) throw new Fault('REQUEST_INVALID', `there is no field ${name}: ${imageFields.join(', ')}`)
    return field
  })
}

function addList(image: Command, ports: ImagePorts): void {
  image
    .command('list')
    .description('images on this machine, one a line')
    .option('--fields <names>', `columns, of ${imageFields.join(',')}`, 'id,name,size,imported,used,pods')
    .option('--sort <names>', 'columns to sort by', 'imported')
    .addOption(new Option('--order <order>', 'up or down').choices(['asc', 'desc']).default('asc'))
    .option('--full', 'digests, times and sizes in full')
    .option('--no-legend', 'without the line of names')
    .addOption(
      new Option('--format <format>', 'instead of a table')
        .choices(['table', 'json', 'json-pretty'])
        .default('table'),
    )
    .action(
      async (options: {
        fields: string
        sort: string
        order: string
        full?: boolean
        legend: boolean
        format: string
      }) => {
        const fields = readFields(options.fields)
        const order = { sort: readFields(options.sort), descending: options.order === 'desc' }
        const images = await ports.list()
        if (options.format !== 'table') {
          const sorted = sortImages(images, order)
          ports.print(JSON.stringify(sorted, undefined, options.format === 'json' ? undefined : 2))
          return
        }
        const table = {
          ...order,
          fields,
          full: options.full ?? false,
          legend: options.legend,
          nowMs: Date.now(),
        }
        for (const line of imageTable(images, table)) ports.print(line)
      },
    )
}

function addRemovals(image: Command, ports: ImagePorts): void {
  image
    .command('rm <image...>')
    .description('forget images, by name or beginning of a digest; all of them or none')
    .action(async (names: string[]) => {
      for (const name of await ports.ask<string[]>('rm', { names })) ports.print(name)
    })
  image
    .command('gc')
    .description('remove images that no pod uses')
    .option('--grace-period <duration>', 'keep what was used within it (90s, 30m, 24h, 7d)', '24h')
    .option('--dry-run', 'only say what would be removed')
    .action(async (options: { gracePeriod: string; dryRun?: boolean }) => {
      const olderThanMs = durationMs(options.gracePeriod)
      if (olderThanMs === undefined)
        throw new Fault(
          'REQUEST_INVALID',
          `--grace-period takes 90s, 30m, 24h or 7d, not ${options.gracePeriod}`,
        )
      const gone = await ports.ask<ImageEntry[]>('gc', { olderThanMs, dryRun: options.dryRun ?? false })
      for (const { reference, sizeBytes } of gone)
        ports.print(`${options.dryRun ? 'would remove' : 'removed'} ${reference} (${sizeText(sizeBytes)})`)
    })
}

function addChecks(image: Command, ports: ImagePorts): void {
  image
    .command('verify [image...]')
    .description('recompute the digests of all that images are made of')
    .option('--all', 'every image')
    .action(async (given: string[], options: { all?: boolean }) => {
      if (given.length > 0 === (options.all ?? false))
        throw new Fault('REQUEST_INVALID', 'name images, or give --all')
      const names = options.all ? (await ports.list()).map(({ reference }) => reference) : given
      if (names.length === 0) return
      for (const { reference, hasBlobs, problems } of await ports.ask<ImageProblems[]>('verify', { names })) {
        if (problems.length > 0) ports.exit(1)
        for (const { digest, problem } of problems) ports.print(`${reference}: ${problem} ${digest}`)
        if (!hasBlobs) {
          ports.exit(1)
          ports.print(
            `${reference}: nothing to verify, an earlier version stored it; fetch it with --pull-policy update`,
          )
        } else if (problems.length === 0) ports.print(`${reference}: ok`)
      }
    })
  image
    .command('fsck')
    .description('check the whole store: what is damaged, missing, unreferenced or half made')
    .option('--repair', 'remove all of that; what is missing has to be fetched again')
    .option('--json', 'as JSON')
    .action(async (options: { repair?: boolean; json?: boolean }) => {
      const findings = await ports.ask<Finding[]>('fsck', { repair: options.repair ?? false })
      if (findings.some(({ repaired }) => !repaired)) ports.exit(1)
      if (options.json) {
        ports.print(JSON.stringify(findings, undefined, 2))
        return
      }
      for (const { kind, path, detail, repaired } of findings)
        ports.print(`${kind} ${path}: ${detail}${repaired ? ' (removed)' : ''}`)
      if (findings.length === 0) ports.print('the store is sound')
    })
}

function addOutputs(image: Command, ports: ImagePorts): void {
  image
    .command('export <image> <target>')
    .description('write an image to a new folder (OCI layout) or a new file (docker archive)')
    .addOption(
      new Option('--format <format>', 'what to write').choices(['oci', 'docker-archive']).default('oci'),
    )
    .option('--name <name>', 'what it is called there: a tag for oci, NAME:TAG for docker-archive')
    .action(async (name: string, target: string, options: { format: string; name?: string }) => {
      const as = options.name === undefined ? {} : { as: options.name }
      await ports.ask('export', { name, target: resolve(target), format: options.format, ...as })
    })
  image
    .command('extract <image> <target>')
    .alias('render')
    .description(
      'write the files of an image, all layers applied, to a new folder: in rootfs, beside manifest and config',
    )
    .option('--rootfs-only', 'only the files, in the folder itself')
    .option('--overwrite', 'replace a folder that is there, once the new one is complete')
    .action(async (name: string, target: string, options: { rootfsOnly?: boolean; overwrite?: boolean }) => {
      await ports.ask('extract', { name, target: resolve(target), ...options })
    })
  image
    .command('cat-manifest <image>')
    .description('print the manifest of an image, byte by byte')
    .option('--config', 'its configuration instead')
    .option('--pretty-print', 'with line breaks')
    .action(async (name: string, options: { config?: boolean; prettyPrint?: boolean }) => {
      const what = options.config ? 'config' : 'manifest'
      const { text } = await ports.ask<{ text: string }>('manifest', { name, what })
      ports.print(options.prettyPrint ? JSON.stringify(JSON.parse(text), undefined, 2) : text)
    })
}
