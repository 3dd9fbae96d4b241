/** Runs podman, with conmon, on top of kiln-oci: node apps/oci-cli/src/conformance/podman.ts [--service] */
import { parseArgs } from 'node:util'
import { runScript } from './script.ts'

const { values } = parseArgs({ options: { service: { type: 'boolean' } } })

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
    service: values.service,
  },
  (line) => void process.stdout.write(`${line}\n`),
)
