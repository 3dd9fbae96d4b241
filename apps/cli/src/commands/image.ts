import { Fault } from '@kiln/service'
import { ensurePackages } from '../lab/host-setup.ts'
import { firstVersion } from '../lab/release.ts'
import { requireRepository } from '../programs.ts'
import { buildEverything } from './build.ts'
import type { CommandContext } from './context.ts'

/** What may name a release: semver.org, without build metadata, which has no place in a boot entry's name. */
const versionPattern = /^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z.-]{1,64})?$/

/** `kiln image`: builds `dist/image/<version>`. */
export async function image(
  options: { version?: string; variant: string; relock: boolean; verifyReproducible: boolean },
  context: CommandContext,
): Promise<void> {
  const version = options.version ?? firstVersion
  if (!versionPattern.test(version))
    throw new Fault('USAGE', `--version is a semantic version such as 1.2.3, not "${version}"`)
  const rootDir = requireRepository()
  await ensurePackages(context)
  const { defaultCacheDir, imageVariants, verifyReproducible } = await import('../image/build-image.ts')
  const say = (line: string): void => context.print(line)
  const variant = imageVariants.find((name) => name === options.variant)
  if (!variant) throw new Fault('USAGE', `--variant is one of ${imageVariants.join(', ')}`)
  if (options.relock) {
    const { describeChange, relock } = await import('../image/relock.ts')
    const changes = await relock({ rootDir, cacheDir: defaultCacheDir(context.environment) })
    say(changes.length === 0 ? 'the lock is current' : changes.map(describeChange).join('\n'))
  }
  if (!options.verifyReproducible) {
    const built = await buildEverything({ rootDir, version, variant, say })
    say(built.dir)
    return
  }
  const { buildBundles } = await import('../bundle/build-bundles.ts')
  await buildBundles({ rootDir, say })
  const { differing, sha256 } = await verifyReproducible({ rootDir, version, variant, say })
  for (const [part, sum] of sha256) say(`${sum}  ${part}${differing.includes(part) ? '  DIFFERS' : ''}`)
  if (differing.length > 0) {
    throw new Fault('IMAGE_NOT_REPRODUCIBLE', `two builds differ in ${differing.join(', ')}`)
  }
}
