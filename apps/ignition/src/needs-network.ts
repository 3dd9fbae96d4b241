import type { IgnitionConfig, IgnitionResource } from '@kiln/schemas'

const remote = /^(https?|tftp|s3|gs|arn):/i

/** Whether a later stage will need the network: for contents, key files, certificates, or to unlock a volume. */
export function needsNetwork(config: IgnitionConfig): boolean {
  const { files = [], luks = [] } = config.storage ?? {}
  const resources: (IgnitionResource | undefined)[] = [
    ...files.flatMap((file) => [file.contents, ...(file.append ?? [])]),
    ...luks.map(({ keyFile }) => keyFile),
    ...(config.ignition.security?.tls?.certificateAuthorities ?? []),
  ]
  const unlocks = luks.some(
    ({ clevis }) =>
      clevis?.custom?.needsNetwork === true || clevis?.tang?.some(({ advertisement }) => !advertisement),
  )
  return unlocks || resources.some((resource) => remote.test(resource?.source ?? ''))
}
