import { readFile } from 'node:fs/promises'
import { type LayerEntry, writeImageArchive } from '@kiln/oci'

const helloVersion = '1.0.0'

const applets = [
  'sh',
  'httpd',
  'cat',
  'echo',
  'hostname',
  'id',
  'kill',
  'ls',
  'nc',
  'printf',
  'ps',
  'sleep',
  'wget',
]

/** Answers every request; busybox httpd runs it as there is no index.html, and passes its line ends on. */
const page = `#!/bin/sh
printf 'Content-Type: application/json\\r\\n\\r\\n'
echo "{\\"machine\\":\\"$KILN_MACHINE\\",\\"pod\\":\\"$KILN_POD\\",\\"version\\":\\"$(cat /etc/hello-version)\\"}"
`

/** Process 1 ignores signals that it does not handle, so the shell waits for the server and stops it. */
const start = `#!/bin/sh
trap 'kill $server; exit 0' TERM INT
httpd -f -p "\${PORT:-8000}" -h /srv &
server=$!
echo "hello $(cat /etc/hello-version) of \${KILN_MACHINE:-nowhere} listens on port \${PORT:-8000}"
wait $server
`

/**
 * Builds the image of the demo pod: a static busybox whose httpd answers with machine, pod and version as JSON. The
 * same busybox gives the same bytes.
 */
export async function buildHelloImage(outFile: string, busyboxFile: string): Promise<string> {
  const busybox = await readFile(busyboxFile)
  const folder = (path: string, mode = 0o755): LayerEntry => ({ path, type: 'directory', mode })
  const layer: LayerEntry[] = [
    folder('bin'),
    { path: 'bin/busybox', content: busybox, mode: 0o755 },
    ...applets.map((name): LayerEntry => ({ path: `bin/${name}`, type: 'symlink', target: 'busybox' })),
    folder('etc'),
    { path: 'etc/hello-version', content: `${helloVersion}\n` },
    { path: 'etc/passwd', content: 'root:x:0:0:root:/root:/bin/sh\nhello:x:1000:1000:hello:/:/bin/sh\n' },
    { path: 'etc/group', content: 'root:x:0:\nhello:x:1000:\n' },
    folder('srv'),
    folder('srv/cgi-bin'),
    { path: 'srv/cgi-bin/index.cgi', content: page, mode: 0o755 },
    folder('tmp', 0o1777),
    { path: 'start', content: start, mode: 0o755 },
  ]
  return writeImageArchive(outFile, {
    layers: [layer],
    tag: `kiln/hello:${helloVersion}`,
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    config: {
      Entrypoint: ['/start'],
      Env: ['PATH=/bin'],
      User: 'hello',
      WorkingDir: '/srv',
      Labels: { 'org.opencontainers.image.version': helloVersion },
    },
  })
}
