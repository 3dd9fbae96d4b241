import { ensurePackages } from '../lab/host-setup.ts'
import { requireRepository } from '../programs.ts'
import type { CommandContext } from './context.ts'

/** Bundles, native programs and an image of them; what is up to date is kept. */
export async function buildEverything(options: {
  rootDir: string
  version: string
  variant?: 'normal' | 'release' | 'bad-panic' | 'bad-unhealthy' | 'bad-hang'
  say: (line: string) => void
}): Promise<{ dir: string; reused: boolean }> {
  const { buildBundles } = await import('../bundle/build-bundles.ts')
  const { buildImage } = await import('../image/build-image.ts')
  await buildBundles({ rootDir: options.rootDir, say: options.say })
  return await buildImage(options)
}

/** `kiln build`. */
export async function build(context: CommandContext): Promise<void> {
  await ensurePackages(context, { only: ['gcc', 'libc6-dev'] })
  const { buildBundles } = await import('../bundle/build-bundles.ts')
  await buildBundles({ rootDir: requireRepository(), say: (line) => context.print(line) })
}
