/** What iPXE is told to load. */
export type BootImages = { kernel: string; initrd: readonly string[]; args: readonly string[] }

/** A setting that iPXE fills in: `${name}`. */
export const ipxeSetting = (name: string): string => '$' + `{${name}}`

/** What iPXE says about its machine, as a query. */
const ipxeLabels = [
  ['uuid', 'uuid'],
  ['mac', 'mac:hexhyp'],
  ['domain', 'domain'],
  ['hostname', 'hostname:uristring'],
  ['serial', 'serial:uristring'],
  ['arch', 'buildarch'],
]
  .map(([label, setting]) => `${label}=${ipxeSetting(setting ?? '')}`)
  .join('&')

/** Waits between attempts to reach the boot server; the last one repeats. */
const retryDelaysSeconds = [1, 2, 4, 8, 15, 30]

/** `/boot.ipxe`: the same for everybody, hands iPXE on to `/ipxe` with the machine's labels; never gives up. */
export function entryScript(): string {
  const lines = ['#!ipxe']
  for (const [index, seconds] of retryDelaysSeconds.entries()) {
    const last = index === retryDelaysSeconds.length - 1
    if (last) lines.push(':again')
    lines.push(
      `chain --replace --autofree ipxe?${ipxeLabels} ||`,
      `echo Kiln: the boot server did not answer, trying again in ${seconds} s`,
      `sleep ${seconds}`,
    )
    if (last) lines.push('goto again')
  }
  return script(lines)
}

/** matchbox's script: load and boot, once. */
export function plainBootScript(images: BootImages): string {
  return script([
    '#!ipxe',
    ['kernel', images.kernel, ...images.args].join(' '),
    ...images.initrd.map((initrd) => `initrd ${initrd}`),
    'boot',
  ])
}

/** Load and boot for a Kiln machine; a broken transfer starts over at the entry script. */
export function installScript(at: { images: BootImages; title: string; base: string }): string {
  return script([
    '#!ipxe',
    `echo Kiln: ${at.title}`,
    `${['kernel', at.images.kernel, ...at.images.args].join(' ')} || goto failed`,
    ...at.images.initrd.map((initrd) => `initrd ${initrd} || goto failed`),
    'boot || goto failed',
    ':failed',
    'echo Kiln: loading failed, starting over in 5 s',
    'imgfree',
    'sleep 5',
    ...backToEntry(at.base),
  ])
}

/** For a machine that must wait: shows who it is and why, and asks again. */
export function waitScript(at: { message: string; base: string; seconds: number }): string {
  return script([
    '#!ipxe',
    'echo',
    'echo Kiln: this machine waits.',
    `echo   MAC    ${ipxeSetting('mac')}`,
    `echo   UUID   ${ipxeSetting('uuid')}`,
    `echo   serial ${ipxeSetting('serial')}`,
    `echo   reason ${plainText(at.message)}`,
    `sleep ${at.seconds}`,
    ...backToEntry(at.base),
  ])
}

/**
 * For an installed machine: leave iPXE, so that the firmware goes on with the disk. The status is not 0, because UEFI
 * stops at its menu when a boot option returns success.
 */
export function diskScript(title: string): string {
  return script(['#!ipxe', `echo Kiln: ${plainText(title)}`, 'exit 1'])
}

function backToEntry(base: string): string[] {
  return [':again', `chain --replace --autofree ${base}/boot.ipxe ||`, 'sleep 10', 'goto again']
}

const script = (lines: string[]): string => `${lines.join('\n')}\n`

/** Text that iPXE prints as it is: no settings, operators or control characters. */
const plainText = (text: string): string =>
  text
    .replaceAll(/[^\x20-\x7e]/g, '?')
    .replaceAll(/[$&|#\\"']/g, '?')
    .slice(0, 300)
