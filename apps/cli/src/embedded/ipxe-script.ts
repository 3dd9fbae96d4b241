/** What a machine does after reading an iPXE script. */
export type IpxeAction =
  | { kind: 'boot'; kernel: string; initrds: string[]; kernelArguments: string }
  /** Reads another script, after a pause. */
  | { kind: 'chain'; url: string; afterSeconds: number }
  /** Leaves iPXE: the firmware goes on with the disk. */
  | { kind: 'exit' }

/** Settings iPXE fills in: `${mac}`, `${mac:hexhyp}`, `${hostname:uristring}`... */
export type IpxeSettings = Record<string, string>

/**
 * The straight path through an iPXE script, as far as kiln-boot writes them: kernel, initrd, boot, chain, sleep, exit;
 * what follows `||` is for failures and is left out. `base` resolves relative URLs.
 */
export function readIpxeScript(script: string, settings: IpxeSettings, base: string): IpxeAction {
  let afterSeconds = 0
  let kernel: { url: string; kernelArguments: string } | undefined
  const initrds: string[] = []
  for (const line of script.split('\n')) {
    const words = expand(line.split('||')[0]!.trim(), settings)
      .split(/\s+/)
      .filter((word) => word !== '')
    const [command, ...rest] = words
    const operands = withoutOptions(rest)
    switch (command) {
      case 'sleep':
        afterSeconds += Number(operands[0])
        break
      case 'chain':
        return { kind: 'chain', url: new URL(operands[0] ?? '', base).href, afterSeconds }
      case 'kernel':
        kernel = { url: new URL(operands[0] ?? '', base).href, kernelArguments: operands.slice(1).join(' ') }
        break
      case 'initrd':
        initrds.push(new URL(operands[0] ?? '', base).href)
        break
      case 'boot':
        if (kernel)
          return { kind: 'boot', kernel: kernel.url, initrds, kernelArguments: kernel.kernelArguments }
        break
      case 'exit':
        return { kind: 'exit' }
    }
  }
  return { kind: 'exit' }
}

/** Options come before operands; `--name` is the only one of ours with a value of its own. */
function withoutOptions(words: string[]): string[] {
  let at = 0
  while (words[at]?.startsWith('--')) at += words[at] === '--name' ? 2 : 1
  return words.slice(at)
}

function expand(text: string, settings: IpxeSettings): string {
  return text.replaceAll(/\$\{([a-z]+)(?::([a-z]+))?\}/g, (_, name: string, form?: string) => {
    const value = settings[name] ?? ''
    if (form === 'hexhyp') return value.replaceAll(':', '-')
    if (form === 'uristring') return encodeURIComponent(value)
    return value
  })
}
