import { capabilitiesFor } from './capabilities.ts'
import type { ContainerPlan } from './plan.ts'

/** A container in a folder, with the host's /usr as its programs: what the tests of this package start. */
export function examplePlan(folder: string, args: string[] = ['/bin/true']): ContainerPlan {
  return {
    kind: 'container',
    id: 'example/main',
    runningFile: `${folder}/running`,
    exitFile: `${folder}/exit`,
    namespaces: ['pid', 'mount', 'ipc', 'uts', 'network'],
    log: { journal: false, file: `${folder}/log`, bytesMax: 65536, fields: { SYSLOG_IDENTIFIER: 'example' } },
    root: {
      kind: 'overlay',
      mountPoint: `${folder}/root`,
      lower: `${folder}/lower`,
      upper: `${folder}/upper`,
      work: `${folder}/work`,
    },
    readonlyRoot: false,
    mounts: [
      { source: '/usr', target: '/usr', type: '', flags: ['bind', 'rec', 'ro'], create: 'directory' },
      {
        source: 'proc',
        target: '/proc',
        type: 'proc',
        flags: ['nosuid', 'nodev', 'noexec'],
        create: 'directory',
      },
      {
        source: 'tmpfs',
        target: '/dev',
        type: 'tmpfs',
        flags: ['nosuid', 'strictatime'],
        data: 'mode=755,size=65536k',
        create: 'directory',
      },
      {
        source: 'devpts',
        target: '/dev/pts',
        type: 'devpts',
        flags: ['nosuid', 'noexec'],
        data: 'newinstance,ptmxmode=0666,mode=0620,gid=5',
        create: 'directory',
      },
      {
        source: 'mqueue',
        target: '/dev/mqueue',
        type: 'mqueue',
        flags: ['nosuid', 'nodev', 'noexec'],
        create: 'directory',
      },
      {
        source: 'sysfs',
        target: '/sys',
        type: 'sysfs',
        flags: ['nosuid', 'nodev', 'noexec', 'ro'],
        create: 'directory',
      },
    ],
    masked: ['/proc/version', '/proc/scsi', '/proc/nothing-of-this-name'],
    readonly: ['/proc/sys'],
    devices: [
      { path: '/dev/null', kind: 'char', mode: 0o666, major: 1, minor: 3 },
      { path: '/dev/zero', kind: 'char', mode: 0o666, major: 1, minor: 5 },
    ],
    symlinks: [{ target: '/proc/self/fd', path: '/dev/fd' }],
    hostname: 'example',
    loopback: true,
    process: {
      args,
      env: { PATH: '/usr/bin:/bin', GREETING: 'hello' },
      cwd: '/srv/work',
      uid: 0,
      gid: 0,
      groups: [],
      umask: 0o022,
      oomScoreAdj: 100,
      noNewPrivileges: true,
      capabilities: capabilitiesFor(['CHOWN', 'KILL', 'NET_BIND_SERVICE'], 0),
      rlimits: [{ resource: 7, soft: 256n, hard: 512n }],
    },
  }
}
