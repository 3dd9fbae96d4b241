import { Fault } from '@kiln/service'
import { ensurePackages } from '../lab/host-setup.ts'
import { firstVersion } from '../lab/release.ts'
import { requireRepository } from '../programs.ts'
import { buildEverything } from './build.ts'
import type { CommandContext } from './context.ts'

/** `kiln image`: builds `dist/image/<version>`. */
export async function image(
  options: { version?: string; variant: string; relock: boolean; verifyReproducible: boolean },
  context: CommandContext,
): Promise<void> {
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
  const version = options.version ?? firstVersion
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
