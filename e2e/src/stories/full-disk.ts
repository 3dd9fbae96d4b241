import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { repositoryRoot, runCommand } from '../kiln-command.ts'
import type { Story } from '../story.ts'
import { expect } from '../waiting.ts'

/** Enough to begin an image, far too little to finish one. */
const diskMiB = 48

export const fullDisk: Story = {
  name: 'full-disk',
  summary: 'the disk is full while an image is built: it says so and leaves nothing half-done',
  budgetSeconds: 60,
  timeoutSeconds: 300,
  needs: ['vms', 'root'],
  async run({ signal, folder, say }) {
    const images = join(repositoryRoot, 'dist/image')
    await mkdir(images, { recursive: true })
    // In a mount namespace of its own, so that nobody else sees the small disk.
    const script = [
      `mount -t tmpfs -o size=${diskMiB}m none "$1"`,
      'code=0; "$2" "$3" image --version 9.9.9 || code=$?',
      'echo "left: $(ls -A "$1")"',
      'exit $code',
    ].join('\n')
    const main = join(repositoryRoot, 'apps/cli/src/main.ts')
    const { code, stdout, stderr } = await runCommand(
      'unshare',
      ['--mount', 'sh', '-c', script, 'sh', images, process.execPath, main],
      { signal, mayFail: true, logPath: join(folder, 'image.log') },
    )
    say(stderr.trim().split('\n').slice(-3).join('\n'))
    expect(code === 1, `kiln image ends with ${code}`)
    expect(/no space left|ENOSPC/i.test(stderr), `it says that the disk is full: ${stderr.slice(-500)}`)
    expect(/^kiln: [A-Z_]+: /m.test(stderr), `it says so with a code: ${stderr.slice(-500)}`)
    expect(/^left: $/m.test(stdout), `nothing is left behind: ${stdout.slice(-200)}`)
  },
}
