import { ignitionVersions, parseIgnition, parsePod } from '@kiln/schemas'
import { describeButaneProblem, translateButane } from '@kiln/schemas/butane'
import { openFilesDirectory } from '@kiln/service'

/** What a machine may be made to download as its config, files within it included. */
const filesBytesMax = 32 * 1024 * 1024
const problemsShown = 3

export const isButaneName = (name: string): boolean => /\.(bu|ya?ml)$/.test(name)

/**
 * Translates a Butane config of the data directory. Files that it names are read below `folder`, where it lies itself,
 * and nowhere else; they are read anew each time, so that an edit of one shows without an edit of the config.
 */
export function translateConfig(
  text: string,
  folder: string,
): { ok: true; text: string } | { ok: false; reason: string } {
  const files = openFilesDirectory(folder, { totalBytesMax: filesBytesMax })
  const result = translateButane(text, { documents: { parseIgnition, parsePod }, files, raw: true })
  if (!result.ok) {
    const errors = result.problems.filter(({ severity }) => severity === 'error').map(describeButaneProblem)
    return { ok: false, reason: [...errors.slice(0, problemsShown), result.failure].join('; ') }
  }
  const { version } = result.config.ignition
  if (!(ignitionVersions as readonly string[]).includes(version)) {
    const reason = `its version is translated to Ignition ${version}, which no agent reads; use a released version`
    return { ok: false, reason }
  }
  return { ok: true, text: result.output }
}
