import { connectionArguments } from '../kv/settings.ts'

/** The address that other commands of `kiln kv` would use, where a snapshot to save names none. */
export function withAddress(argv: readonly string[], environment: NodeJS.ProcessEnv): string[] {
  const [command, verb] = argv
  const names = (flag: string): boolean => argv.some((word) => word === flag || word.startsWith(`${flag}=`))
  if (command !== 'snapshot' || verb !== 'save' || names('--endpoints') || names('--help')) return [...argv]
  return [...argv, ...connectionArguments({}, environment)]
}
