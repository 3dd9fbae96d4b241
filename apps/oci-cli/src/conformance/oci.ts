/**
 * Runs the OCI runtime script against kiln-oci.
 *
 *   node apps/oci-cli/src/conformance/oci.ts [--only REGEX] [--strict] [--cgroup v1|v2|host] [--service]
 */
import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { runScript } from './script.ts'

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    strict: { type: 'boolean' },
    cgroup: { type: 'string' },
    service: { type: 'boolean' },
    help: { type: 'boolean' },
  },
})
const v1 = values.cgroup === 'v1' || (values.cgroup === undefined && existsSync('/sys/fs/cgroup/unified'))

const run = () =>
  runScript(
    {
      script: 'oci-runtime.sh',
      args: values.only ? ['-k', values.only] : [],
      tools: { busybox: 'busybox-static', jq: 'jq', python3: 'python3', unshare: 'util-linux' },
      skips: v1
        ? { cgroup_unified: 'the unified map needs cgroup v2, which this host does not give its containers' }
        : {},
      service: values.service,
      env: { ...(values.strict ? { STRICT: '1' } : {}), ...(values.cgroup ? { CG: values.cgroup } : {}) },
    },
    (line) => void process.stdout.write(`${line}\n`),
  )

if (values.help)
  console.log('./kiln conformance oci [--only REGEX] [--strict] [--cgroup v1|v2|host] [--service]')
else process.exitCode = await run()
