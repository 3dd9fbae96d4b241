import { readFile } from 'node:fs/promises'
import {
  checkStore,
  exportDockerArchive,
  exportLayout,
  exportTree,
  type Finding,
  isLocalKind,
  type ListedImage,
  type Policy,
  parseImageReference,
  type Rule,
  readPolicy,
  readPrefix,
  readPublicKey,
  trustedKeys,
  verifyImage as verifyBlobs,
  withRule,
  writePolicy,
} from '@kiln/oci'
import { Fault, type Log } from '@kiln/service'
import * as z from 'zod'
import type { Images, ImagesInUse } from './images.ts'

const reference = z.string().min(1).max(1024)
/** A prefix of images, or `null` for all that has no own rule. */
const prefix = z.string().max(512).nullable()

export const FetchRequest = z.strictObject({
  reference,
  policy: z.enum(['never', 'new', 'update']),
  insecure: z.boolean().default(false),
})
export const NamesRequest = z.strictObject({ names: z.array(reference).min(1).max(1000) })
export const CollectRequest = z.strictObject({
  olderThanMs: z.number().int().min(0),
  dryRun: z.boolean().default(false),
})
export const CheckRequest = z.strictObject({ repair: z.boolean().default(false) })
export const ExportRequest = z.strictObject({
  name: reference,
  target: z.string().startsWith('/').max(4096),
  format: z.enum(['oci', 'docker-archive']),
  as: z.string().max(1024).optional(),
})
export const ExtractRequest = z.strictObject({
  name: reference,
  target: z.string().startsWith('/').max(4096),
  rootfsOnly: z.boolean().default(false),
  overwrite: z.boolean().default(false),
})
export const ManifestRequest = z.strictObject({ name: reference, what: z.enum(['manifest', 'config']) })
export const TrustRequest = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('add'),
    prefix,
    pem: z.string().max(4096),
    anyIdentity: z.boolean().default(false),
  }),
  z.strictObject({ kind: z.literal('set'), prefix, policy: z.enum(['accept', 'refuse']) }),
  z.strictObject({ kind: z.literal('rm'), prefix, fingerprint: z.string().max(80).optional() }),
])
export type TrustRequest = z.output<typeof TrustRequest>

/** One image as the command line shows it. */
export type ImageEntry = {
  reference: string
  /** Of the manifest, or of the config of a docker archive. */
  digest: string
  configDigest: string
  /** Of the blobs, or for images of earlier versions of the unpacked files. */
  sizeBytes: number
  layers: number
  importedAt: string
  lastUsedAt: string
  /** Names of pods. */
  usedBy: string[]
  /** Fingerprints of the keys that signed it, as far as they were asked for. */
  signedBy: string[]
  insecure: boolean
}

export type TrustEntry = {
  prefix: string | null
  policy: Rule['policy']
  keys: string[]
  anyIdentity: boolean
}
export type ImageProblems = {
  reference: string
  hasBlobs: boolean
  problems: Awaited<ReturnType<typeof verifyBlobs>>
}
type Progress = { bytes: number; bytesDone: number; layers: number; layersDone: number }

/** Which images a pod uses: by name, and by the trees its containers run on. */
export type ImageUser = { pod: string; references: string[]; chains: string[] }

export type ImageService = ReturnType<typeof openImageService>

/** What can be done with images over the daemon's socket. */
export function openImageService(input: {
  images: Images
  folder: string
  users(): ImageUser[]
  inUse(): ImagesInUse
  imagePolicyFile: string
  signal: AbortSignal
  log: Log
}) {
  const { images, signal, imagePolicyFile, log } = input
  const { store } = images
  /** Images whose blobs are being read, by how often. */
  const reading = new Map<string, number>()
  let trusting: Promise<unknown> = Promise.resolve()

  const inUse = (): ImagesInUse => {
    const { references, chains } = input.inUse()
    return { references: new Set([...references, ...reading.keys()]), chains }
  }
  const entryOf = (image: ListedImage): ImageEntry => ({
    reference: image.reference,
    digest: image.digest,
    configDigest: image.configDigest,
    sizeBytes: image.blobs ? image.blobs.reduce((sum, { size }) => sum + size, 0) : image.sizeBytes,
    layers: image.config.rootfs.diff_ids.length,
    importedAt: image.importedAt,
    lastUsedAt: image.lastUsedAt,
    usedBy: input
      .users()
      .filter(({ references }) => references.includes(image.reference))
      .map(({ pod }) => pod),
    signedBy: image.admittedBy?.kind === 'policy' ? image.admittedBy.keys : [],
    insecure: image.admittedBy?.kind === 'insecure-options',
  })
  const whileReading = async <T>(names: string[], work: () => Promise<T>): Promise<T> => {
    for (const name of names) reading.set(name, (reading.get(name) ?? 0) + 1)
    try {
      return await work()
    } finally {
      for (const name of names) {
        const left = reading.get(name)! - 1
        if (left > 0) reading.set(name, left)
        else reading.delete(name)
      }
    }
  }
  const findOne = async (name: string): Promise<ListedImage> => findImages(await store.list(), name)[0]!
  const changePolicy = async <T>(change: (policy: Policy) => { policy: Policy; answer: T }): Promise<T> => {
    const work = trusting.then(async () => {
      const { policy, answer } = change(await readPolicy(imagePolicyFile))
      await writePolicy(imagePolicyFile, policy)
      log.info(
        { prefixes: Object.keys(policy.prefixes), default: policy.default.policy },
        'image policy changed',
      )
      return answer
    })
    trusting = work.catch(() => undefined)
    return await work
  }

  return {
    fetch: async (
      wanted: z.output<typeof FetchRequest>,
      onProgress: (progress: Progress) => void,
    ): Promise<ImageEntry> => {
      const policy = { never: 'Never', new: 'IfNotPresent', update: 'Always' } as const
      const options = { insecure: wanted.insecure, strict: true, onProgress }
      if (wanted.insecure)
        log.warn({ reference: wanted.reference }, 'image is fetched whatever the policy says')
      await images.acquire(wanted.reference, policy[wanted.policy], options)
      return entryOf(await findOne(wanted.reference))
    },

    list: async (): Promise<ImageEntry[]> => (await store.list()).map(entryOf),

    /** Removes all of them or none. */
    remove: async ({ names }: z.output<typeof NamesRequest>): Promise<string[]> => {
      const all = await store.list()
      const doomed = new Set(names.flatMap((name) => findImages(all, name)))
      const stays = all.filter((image) => !doomed.has(image))
      for (const image of doomed) {
        // The tree of another image that stays is no reason to keep this one.
        const isLast = !stays.some(({ chainId }) => chainId === image.chainId)
        const pods = input
          .users()
          .filter(
            ({ references, chains }) =>
              references.includes(image.reference) || (isLast && chains.includes(image.chainId)),
          )
          .map(({ pod }) => pod)
        if (pods.length > 0)
          throw new Fault('IMAGE_IN_USE', `image ${image.reference} is used by ${namesOf('pod', pods)}`)
        if (reading.has(image.reference))
          throw new Fault('IMAGE_IN_USE', `image ${image.reference} is being exported or verified`)
      }
      for (const { reference: name } of doomed) await store.remove(name)
      // While another image is fetched its files stay; the next collection finds them.
      await images.unused(inUse, Number.MAX_SAFE_INTEGER, true).catch((error: unknown) => {
        if (!(error instanceof Fault && error.code === 'IMAGE_STORE_BUSY')) throw error
      })
      return [...doomed].map((image) => image.reference)
    },

    collect: async ({ olderThanMs, dryRun }: z.output<typeof CollectRequest>): Promise<ImageEntry[]> =>
      (await images.unused(inUse, olderThanMs, !dryRun)).map(entryOf),

    verify: async ({ names }: z.output<typeof NamesRequest>): Promise<ImageProblems[]> => {
      const all = await store.list()
      const wanted = [...new Set(names.flatMap((name) => findImages(all, name)))]
      const work = async (): Promise<ImageProblems[]> => {
        const found: ImageProblems[] = []
        for (const image of wanted)
          found.push({
            reference: image.reference,
            hasBlobs: image.blobs !== undefined,
            problems: await verifyBlobs(store.blobs.folder, image),
          })
        return found
      }
      return await whileReading(
        wanted.map((image) => image.reference),
        work,
      )
    },

    check: async ({ repair }: z.output<typeof CheckRequest>): Promise<Finding[]> =>
      await images.alone(async () => {
        if (repair && reading.size > 0)
          throw new Fault('IMAGE_STORE_BUSY', 'an image is being exported or verified')
        return await checkStore({ folder: input.folder, inUse: input.inUse().chains, repair, signal })
      }),

    export: async ({ name, target, format, as }: z.output<typeof ExportRequest>): Promise<ImageEntry> => {
      const image = await findOne(name)
      const wanted = { blobsFolder: store.blobs.folder, image, target, name: as, signal }
      const write = format === 'oci' ? exportLayout : exportDockerArchive
      await whileReading([image.reference], () => write(wanted))
      return entryOf(image)
    },

    extract: async ({ name, ...where }: z.output<typeof ExtractRequest>): Promise<ImageEntry> => {
      const image = await findOne(name)
      const wanted = { blobsFolder: store.blobs.folder, image, tree: store.treeOf(image), signal, ...where }
      await whileReading([image.reference], () => exportTree(wanted))
      return entryOf(image)
    },

    manifest: async ({ name, what }: z.output<typeof ManifestRequest>): Promise<{ text: string }> => {
      const image = await findOne(name)
      const blob = image.blobs?.[what === 'manifest' ? 0 : 1]
      if (!blob)
        throw new Fault('IMAGE_WITHOUT_BLOBS', `image ${image.reference} was stored without its manifest`, {
          remedy: 'an earlier version fetched it: fetch it again with --pull-policy update',
        })
      const text = await readFile(store.blobs.path(blob.digest), 'utf8').catch((cause: unknown) => {
        throw new Fault('IMAGE_DIGEST_MISMATCH', `blob ${blob.digest} is missing from the store`, { cause })
      })
      return { text }
    },

    trusted: async (): Promise<TrustEntry[]> => {
      const policy = await readPolicy(imagePolicyFile)
      const prefixes = Object.entries(policy.prefixes).sort(([a], [b]) => (a < b ? -1 : 1))
      return [trustEntry(null, policy.default), ...prefixes.map(([of, rule]) => trustEntry(of, rule))]
    },

    trust: async (wanted: TrustRequest): Promise<TrustEntry & { changed: string[] }> => {
      const of = wanted.prefix === null ? undefined : readPrefix(wanted.prefix)
      return await changePolicy((policy) => {
        const old = of === undefined ? policy.default : policy.prefixes[of]
        const { rule, changed } = changeRule(old, wanted)
        const answer = { ...trustEntry(wanted.prefix, rule ?? { policy: 'accept' }), changed }
        return { policy: withRule(policy, of, rule), answer }
      })
    },
  }
}

const trustEntry = (prefix: string | null, rule: Rule): TrustEntry => ({
  prefix,
  policy: rule.policy,
  keys: trustedKeys(rule).map(({ fingerprint }) => fingerprint),
  anyIdentity: rule.policy === 'signed' && rule.signedIdentity === 'any',
})

/** The next rule of a prefix, and the fingerprints that came or went. Undefined: the prefix has no rule of its own any more. */
function changeRule(
  old: Rule | undefined,
  wanted: TrustRequest,
): { rule: Rule | undefined; changed: string[] } {
  const known = old ? trustedKeys(old) : []
  const where = wanted.prefix ?? 'the root'
  switch (wanted.kind) {
    case 'add': {
      if (wanted.prefix !== null && isLocalKind(wanted.prefix))
        throw new Fault('IMAGE_PREFIX_INVALID', `images of the kind ${wanted.prefix} have no signatures`, {
          remedy: 'image trust set accepts or refuses them',
        })
      const key = readPublicKey(wanted.pem)
      const keys = [...new Set([...known.map(({ pem }) => pem), key.pem])]
      const signedIdentity = wanted.anyIdentity ? 'any' : 'repository'
      return { rule: { policy: 'signed', keys, signedIdentity }, changed: [key.fingerprint] }
    }
    case 'set':
      return { rule: { policy: wanted.policy }, changed: known.map(({ fingerprint }) => fingerprint) }
    case 'rm': {
      if (!old) throw new Fault('IMAGE_KEY_NOT_FOUND', `there is no rule for ${where}`)
      if (wanted.fingerprint === undefined)
        return { rule: undefined, changed: known.map(({ fingerprint }) => fingerprint) }
      const start = wanted.fingerprint.replace(/^sha256:/, '')
      const gone = known.filter(
        ({ fingerprint }) => start !== '' && fingerprint.startsWith(`sha256:${start}`),
      )
      if (gone.length !== 1 || old.policy !== 'signed')
        throw new Fault(
          'IMAGE_KEY_NOT_FOUND',
          `${gone.length} keys of ${where} begin with ${wanted.fingerprint}`,
        )
      const keys = known.filter((key) => key !== gone[0]).map(({ pem }) => pem)
      return { rule: { ...old, keys }, changed: [gone[0]!.fingerprint] }
    }
  }
}

/** Images by name (also as another way to write it), or by the beginning of a digest, at least four digits; never none. */
export function findImages<T extends { reference: string; digest: string; configDigest: string }>(
  images: T[],
  name: string,
): T[] {
  const exact = images.filter((image) => image.reference === name)
  if (exact.length > 0) return exact
  const start = /^(?:sha256:)?([0-9a-f]{4,64})$/.exec(name)?.[1]
  const digests = ({ digest, configDigest }: T): string[] => [digest, configDigest]
  const byDigest =
    start === undefined
      ? []
      : images.filter((image) => digests(image).some((digest) => digest.startsWith(`sha256:${start}`)))
  if (new Set(byDigest.map(({ digest }) => digest)).size > 1)
    throw new Fault(
      'IMAGE_AMBIGUOUS',
      `${name} begins several digests: ${byDigest.map((image) => `${image.digest.slice(0, 19)} (${image.reference})`).join(', ')}`,
    )
  if (byDigest.length > 0) return byDigest
  const full = fullName(name)
  const same = full === undefined ? [] : images.filter((image) => fullName(image.reference) === full)
  if (same.length > 0) return same
  throw new Fault('IMAGE_NOT_PRESENT', `there is no image ${name} on this machine`)
}

function fullName(text: string): string | undefined {
  try {
    const parsed = parseImageReference(text, undefined)
    if (parsed.kind !== 'registry') return undefined
    const { registry, repository, tag, pin } = parsed
    return `${registry}/${repository}${pin === undefined ? `:${tag}` : `@${pin}`}`
  } catch {
    return undefined
  }
}

const namesOf = (what: string, names: string[]): string =>
  names.length === 1 ? `${what} ${names[0]}` : `${what}s ${names.join(', ')}`
