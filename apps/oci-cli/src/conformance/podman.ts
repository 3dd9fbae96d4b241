/** Runs podman, with conmon, on top of kiln-oci: node apps/oci-cli/src/conformance/podman.ts */
import { runScript } from './script.ts'

process.exitCode = await runScript(
  {
    script: 'podman.sh',
    args: [],
    tools: {
      busybox: 'busybox-static',
      conmon: 'conmon',
      jq: 'jq',
      podman: 'podman',
      script: 'bsdutils',
      unshare: 'util-linux',
    },
    skips: {},
  },
  (line) => void process.stdout.write(`${line}\n`),
)
