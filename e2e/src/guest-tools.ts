import { createReadStream, existsSync } from 'node:fs'
import { chmod, copyFile, cp, mkdir, readdir, realpath, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { basename, join } from 'node:path'
import type { Cluster } from './cluster.ts'
import { runCommand } from './kiln-command.ts'
import type { StoryContext } from './story.ts'
import { expect } from './waiting.ts'

/** Debian packages of the host that the tools are taken from. */
export const guestToolPackages = ['busybox-static', 'gojq', 'python3'] as const

/** Where the tools are mounted in a machine; their programs are in `bin` below. */
export const guestToolsPath = '/run/guest-tools'

const fetchMs = 180_000

/** Parts of Python's library that are large and that no script of ours asks for. */
const pythonLeftOut = /\/(test|idlelib|ensurepip|lib2to3|pydoc_data|tkinter|config-[^/]*)$/

/**
 * Gives a machine what the image does not have: jq, Python, a static busybox, and `files` by name. They come from this host in a
 * read-only image with the libraries that they load, so that the machine's own do not matter; the machine fetches it and mounts it.
 */
export async function giveTools(
  context: StoryContext,
  { cluster, machine, files }: { cluster: Cluster; machine: string; files: Readonly<Record<string, string>> },
): Promise<void> {
  const image = await makeImage(context, files)
  const server = createServer((_request, response) => void createReadStream(image).pipe(response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  context.onEnd(() => new Promise((resolve) => void server.close(() => resolve())))
  const address = server.address()
  expect(address !== null && typeof address === 'object', 'the tools are served')
  const copy = '/var/tmp/guest-tools.img'
  const get = `require("http").get("http://10.0.2.2:${address.port}/", (answer) => answer.pipe(require("fs").createWriteStream("${copy}")))`
  const steps = [
    `if mountpoint -q ${guestToolsPath}; then umount -l ${guestToolsPath}; fi`,
    `node -e '${get}'`,
    `mkdir -p ${guestToolsPath}`,
    `mount -t erofs -o loop,ro ${copy} ${guestToolsPath}`,
  ]
  const { code, output } = await cluster.shell(machine, steps.join(' && '), {
    signal: context.signal,
    timeoutMs: fetchMs,
  })
  expect(code === 0, `${machine} mounts the tools: ${output}`)
}

async function makeImage(context: StoryContext, files: Readonly<Record<string, string>>): Promise<string> {
  const { signal, scratch } = context
  const tree = join(scratch, 'tools')
  const [bin, lib] = [join(tree, 'bin'), join(tree, 'lib')]
  for (const folder of [bin, lib]) await mkdir(folder, { recursive: true })
  await copyFile(['/usr/bin/busybox', '/bin/busybox'].find(existsSync)!, join(bin, 'busybox'))
  // Another make of jq, static, which starts in a tenth of the time: scripts start it a thousand times.
  await copyFile('/usr/bin/gojq', join(bin, 'jq'))
  await placePython({ bin, lib, signal })
  for (const [name, path] of Object.entries(files)) await copyFile(path, join(tree, name))
  const image = join(scratch, 'tools.img')
  await runCommand('mkfs.erofs', ['--all-root', image, tree], { signal })
  return image
}

/** Python with its loader: a script that starts it the way the loader starts a program. */
async function placePython(at: { bin: string; lib: string; signal: AbortSignal }): Promise<void> {
  const program = await realpath('/usr/bin/python3')
  const { stdout } = await runCommand('ldd', [program], { signal: at.signal })
  const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path!)
  const loader = libraries.find((path) => basename(path).startsWith('ld-'))
  expect(loader, `${program} has a loader: ${stdout}`)
  for (const path of libraries) await copyFile(path, join(at.lib, basename(path)))
  await copyFile(program, join(at.lib, 'python3'))
  const version = basename(program)
  await cp(join('/usr/lib', version), join(at.lib, version), {
    recursive: true,
    dereference: true,
    filter: (path) => !pythonLeftOut.test(path),
  })
  await writeFile(
    join(at.bin, 'python3'),
    [
      '#!/bin/sh',
      `export PYTHONHOME=${guestToolsPath}`,
      `lib=${guestToolsPath}/lib`,
      `exec "$lib/${basename(loader)}" --library-path "$lib" "$lib/python3" -S "$@"`,
      '',
    ].join('\n'),
  )
  for (const name of await readdir(at.bin)) await chmod(join(at.bin, name), 0o755)
}
