import type { TargetRoot } from './target-root.ts'

const path = '/etc/.ignition-result.json'

/** Writes what was provisioned when; an earlier report is kept inside, as Ignition does. */
export function writeResult(
  target: TargetRoot,
  result: { bootId: string; at: Date; userConfigProvided: boolean },
): { repeated: boolean } {
  const previous = parsed(target.read(path))
  const report = {
    provisioningBootID: result.bootId,
    provisioningDate: localRfc3339(result.at),
    userConfigProvided: result.userConfigProvided,
    ...(previous === undefined ? {} : { previousReport: previous }),
  }
  target.write(path, `${JSON.stringify(report, null, 2)}\n`, 0o600, { uid: 0, gid: 0 })
  return { repeated: previous !== undefined }
}

function parsed(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
}

/** RFC 3339 in the machine's own time zone. */
function localRfc3339(at: Date): string {
  const offset = -at.getTimezoneOffset()
  const local = new Date(at.getTime() + offset * 60_000).toISOString().slice(0, 19)
  if (offset === 0) return `${local}Z`
  const two = (value: number): string => String(Math.trunc(Math.abs(value))).padStart(2, '0')
  return `${local}${offset < 0 ? '-' : '+'}${two(offset / 60)}:${two(offset % 60)}`
}
