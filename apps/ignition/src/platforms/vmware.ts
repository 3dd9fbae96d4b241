import { Fault } from '@kiln/service'
import { resourceBytesMax } from '../fetch-resource.ts'
import { type Platform, type PlatformPorts, presentAttributes } from './platform.ts'

/** A value that the hypervisor keeps for the guest; undefined when it has none. */
async function guestInfo(ports: PlatformPorts, name: string): Promise<string | undefined> {
  try {
    const { stdout } = await ports.command('vmware-rpctool', [`info-get guestinfo.${name}`])
    return stdout.trim() === '' ? undefined : stdout.trim()
  } catch (error) {
    // The tool fails for a value that is not set, and its absence is told apart.
    if (error instanceof Fault && error.code === 'COMMAND_MISSING') throw error
    return undefined
  }
}

/** The value as its encoding says: plain, base64, or gzip in base64. */
async function decode(text: string, encoding: string): Promise<Buffer> {
  switch (encoding) {
    case '':
      return Buffer.from(text)
    case 'b64':
    case 'base64':
      return Buffer.from(text, 'base64')
    case 'gz+b64':
    case 'gzip+b64':
    case 'gz+base64':
    case 'gzip+base64':
      return (await import('node:zlib')).gunzipSync(Buffer.from(text, 'base64'), {
        maxOutputLength: resourceBytesMax,
      })
    default:
      throw new Fault('RESOURCE_INVALID', `guestinfo.ignition.config.data has the encoding ${encoding}`, {
        remedy: 'use base64 or gzip+base64',
      })
  }
}

/** VMware's guestinfo variables. */
export const vmware: Platform = {
  needsNetwork: false,
  async config(ports) {
    const source = 'guestinfo.ignition.config.data'
    const text = await guestInfo(ports, 'ignition.config.data')
    if (text === undefined) return undefined
    const encoding = (await guestInfo(ports, 'ignition.config.data.encoding')) ?? ''
    return { bytes: await decode(text, encoding), source }
  },
  async attributes(ports) {
    const hostname = await guestInfo(ports, 'hostname')
    return presentAttributes({ HOSTNAME: hostname })
  },
}
