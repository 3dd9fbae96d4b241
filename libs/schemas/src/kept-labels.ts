import * as z from 'zod'

/** Labels every installed machine's disk has (docs/reference/seams.md). */
export const installLabels = ['EFI', 'USR-A', 'USR-B', 'ROOT'] as const

const labelLengthMax = 36
const labelsMax = 16

/** Labels of partitions that survive a reprovision. The system's own are what it makes anew. */
export const KeptLabels = z
  .array(
    z
      .string()
      .min(1)
      .max(labelLengthMax)
      .regex(/^[^\p{Cc}]*$/u, 'must be printable')
      .refine((label) => !installLabels.some((own) => own === label), {
        error: `${installLabels.join(', ')} are made anew and cannot be kept`,
      }),
  )
  .max(labelsMax)
  .refine((labels) => new Set(labels).size === labels.length, 'names a label twice')
export type KeptLabels = z.output<typeof KeptLabels>

/** Body of `POST /v1/machines/ID/reinstall`. */
export const ReinstallRequest = z.strictObject({ keep: KeptLabels.default([]) })

/** Name of the kernel argument that holds the labels, each percent-encoded, with commas between them. */
export const keepArgument = 'kiln.keep'

export const keptText = (labels: readonly string[]): string => labels.map(encodeURIComponent).join(',')

/** The labels of a kernel argument; what is not percent-encoded as it should be counts as it stands. */
export const keptLabels = (text: string): string[] =>
  text
    .split(',')
    .filter((word) => word !== '')
    .map((word) => {
      try {
        return decodeURIComponent(word)
      } catch {
        return word
      }
    })
