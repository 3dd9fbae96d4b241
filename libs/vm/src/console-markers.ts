/** Stages of a machine from power-on to service, in order (docs/reference/seams.md). */
export const machineStages = [
  'firmware',
  'ipxe',
  'kernel',
  'fetch',
  'disks',
  'image',
  'files',
  'switch-root',
  'units',
  'ready',
] as const

export type MachineStage = (typeof machineStages)[number]

/** What one console line says about a machine's progress. */
export type ConsoleMark = { stage: string; uptimeSeconds?: number; fields: Record<string, string> }

/** Reads `MARK:<stage> uptime=<seconds> key=value...`; other lines give `undefined`. */
export function parseMark(line: string): ConsoleMark | undefined {
  const found = /MARK:([a-z][a-z0-9-]*)((?: +[a-zA-Z]+=(?:"[^"]*"|\S*))*)/.exec(line)
  if (!found) return undefined
  const fields: Record<string, string> = {}
  for (const [, name, value] of (found[2] ?? '').matchAll(/([a-zA-Z]+)=("[^"]*"|\S*)/g)) {
    if (name !== undefined && value !== undefined) fields[name] = value.replace(/^"|"$/g, '')
  }
  const uptime = Number(fields['uptime'])
  return { stage: found[1] ?? '', uptimeSeconds: Number.isFinite(uptime) ? uptime : undefined, fields }
}

/** Stage that a line of firmware, boot loader or kernel shows, before our own programs run. */
export function impliedStage(line: string): MachineStage | undefined {
  if (/^(BdsDxe|UEFI |TianoCore)|SeaBIOS/.test(line)) return 'firmware'
  if (/iPXE (initialising|\d)|^Configuring \(net0/.test(line)) return 'ipxe'
  if (/Linux version \d|EFI stub: /.test(line)) return 'kernel'
  return undefined
}

/** Control sequences of a terminal, carriage returns and other noise taken out of a line. */
export function plainLine(line: string): string {
  return line
    .replace(/\u001b\[[0-9;?=]*[A-Za-z]/g, '')
    .replace(/\u001b[()][A-Z0-9]|\u001b[=>78cM]/g, '')
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, '')
    .trimEnd()
}
