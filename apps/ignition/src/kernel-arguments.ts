import { keepArgument, keptLabels } from '@kiln/schemas'

/** What the kernel command line tells the agent (docs/reference/seams.md). */
export type KernelArguments = {
  configUrl: string | undefined
  bootUrl: string | undefined
  machine: string | undefined
  usrUrl: string | undefined
  usrHash: string | undefined
  disk: string | undefined
  reinstall: boolean
  /** Labels of partitions that must come out of this run as they are. */
  keep: string[]
}

export function parseKernelArguments(cmdline: string): KernelArguments {
  const values = new Map<string, string>()
  for (const word of cmdline.trim().split(/\s+/)) {
    const equals = word.indexOf('=')
    if (equals > 0) values.set(word.slice(0, equals), word.slice(equals + 1))
  }
  return {
    // An empty one is none: a boot server's own is turned off so.
    configUrl: values.get('ignition.config.url') || undefined,
    bootUrl: values.get('kiln.boot')?.replace(/\/+$/, ''),
    machine: values.get('kiln.machine'),
    usrUrl: values.get('kiln.usr.url'),
    usrHash: values.get('kiln.usr.hash'),
    disk: values.get('kiln.disk'),
    reinstall: values.get('kiln.reinstall') === '1',
    keep: keptLabels(values.get(keepArgument) ?? ''),
  }
}
