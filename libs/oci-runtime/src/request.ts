import { Fault } from '@kiln/service'

/** The facts the C front took where the caller is, by the tags of `native/oci-ask.c`. */
export type FrontRequest = {
  command: string
  args: string[]
  cwd: string
  env: Record<string, string>
  mountinfo: string
  cgroup: string
  /** `config.json`, the process of `exec --process`, or the resources of `update --resources`. */
  document?: string
  /** What `create` left for `exec` and `update`: see `ExecBase`. */
  base?: string
  systemd: boolean
  uid: number
}

const tags = [
  '',
  'command',
  'argument',
  'cwd',
  'environment',
  'mounts',
  'cgroup',
  'document',
  'base',
  'systemd',
  'user',
] as const

export function decodeRequest(bytes: Buffer): FrontRequest {
  const request: FrontRequest = {
    command: '',
    args: [],
    cwd: '/',
    env: {},
    mountinfo: '',
    cgroup: '',
    systemd: false,
    uid: 0,
  }
  for (let at = 0; at < bytes.length; ) {
    if (at + 8 > bytes.length) throw new Fault('OCI_REQUEST_INVALID', 'a fact of the front is cut off')
    const tag = tags[bytes.readUInt32LE(at)]
    const length = bytes.readUInt32LE(at + 4)
    if (!tag || at + 8 + length > bytes.length)
      throw new Fault('OCI_REQUEST_INVALID', 'the front and the planner are of different versions')
    apply(request, tag, bytes.toString('utf8', at + 8, at + 8 + length))
    at += 8 + length
  }
  return request
}

function apply(request: FrontRequest, tag: (typeof tags)[number], text: string): void {
  switch (tag) {
    case '':
      return
    case 'command':
    case 'cwd':
    case 'cgroup':
    case 'document':
    case 'base':
      request[tag] = text
      return
    case 'argument':
      request.args.push(text)
      return
    case 'environment':
      request.env[text.slice(0, text.indexOf('='))] = text.slice(text.indexOf('=') + 1)
      return
    case 'mounts':
      request.mountinfo = text
      return
    case 'systemd':
      request.systemd = true
      return
    case 'user':
      request.uid = Number(text)
  }
}
