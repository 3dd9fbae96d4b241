import { setFlagsFromString } from 'node:v8'

/**
 * Imported first by daemons that have little to do: V8's young generation stays at its first 1 MiB in place of growing to 16 while the
 * program is loaded, which saves 5 MiB of each. Given to `node` as a flag, the like costs a quarter more start, as V8 then refuses the
 * snapshot and the compiled code that come with Node.
 */
setFlagsFromString('--semi-space-growth-factor=1')
