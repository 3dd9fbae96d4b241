import * as z from 'zod'

const Words = z.array(z.string().max(4096)).max(256)

/**
 * What a machine's config changes of the kernel's arguments (Ignition, `kernelArguments`), as it lies on the ESP where the agent and
 * every later update find it.
 */
export const KernelArgumentChanges = z.looseObject({
  formatVersion: z.literal(1),
  shouldExist: Words,
  shouldNotExist: Words,
})
export type KernelArgumentChanges = z.output<typeof KernelArgumentChanges>

/** Name of the file with the changes, at the top of the ESP. */
export const kernelArgumentsFile = 'kiln-arguments.json'

/** Arguments of a release with a machine's changes: what should not exist goes, what should and is missing comes last. */
export function changedArguments(
  given: readonly string[],
  changes: Pick<KernelArgumentChanges, 'shouldExist' | 'shouldNotExist'>,
): string[] {
  const unwanted = new Set(words(changes.shouldNotExist))
  const kept = words(given).filter((word) => !unwanted.has(word))
  return [...kept, ...new Set(words(changes.shouldExist).filter((word) => !kept.includes(word)))]
}

/** Arguments that only Kiln itself sets, as they say what is booted. */
export const reservedArguments = (changes: Pick<KernelArgumentChanges, 'shouldExist'>): string[] =>
  words(changes.shouldExist).filter((word) => word.startsWith('kiln.'))

/** Arguments as the kernel reads them: parted by spaces, but for those in double quotes. */
function words(texts: readonly string[]): string[] {
  return texts.flatMap((text) => text.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? [])
}
