import { refuse } from './config.ts'

/** One hierarchy: its controllers (none for v2), where it is mounted, and where the caller is in it. */
export type Hierarchy = { controllers: string[]; mountPoint: string; own: string }
export type CgroupLayout = { kind: 'v1' | 'v2' | 'none'; hierarchies: Hierarchy[] }

const unescapePath = (path: string): string =>
  path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/** What `/proc/self/mountinfo` and `/proc/self/cgroup` say. On a hybrid host v1 holds the controllers: that is v1. */
export function readLayout(mountinfo: string, cgroup: string): CgroupLayout {
  const own = new Map(
    cgroup.split('\n').flatMap((line) => {
      const [, controllers, ...path] = line.split(':')
      return controllers === undefined
        ? []
        : [[controllers.split(',').sort().join(','), path.join(':')] as const]
    }),
  )
  const found = new Map<string, Hierarchy>()
  let unified: Hierarchy | undefined
  for (const line of mountinfo.split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    const [, , , root = '/', point = ''] = left.split(' ')
    const [type, , options = ''] = right.split(' ')
    const mountPoint = unescapePath(point)
    if (type === 'cgroup2' && mountPoint === '/sys/fs/cgroup')
      unified = { controllers: [], mountPoint, own: below(own.get('') ?? '/', unescapePath(root)) }
    if (type !== 'cgroup' || !mountPoint.startsWith('/sys/fs/cgroup/')) continue
    const controllers = options
      .split(',')
      .filter(
        (option) => !['rw', 'ro', 'xattr', 'clone_children', 'cpuset_v2_mode', 'noprefix'].includes(option),
      )
      .filter((option) => !option.startsWith('release_agent='))
      .sort()
    const key = controllers.join(',')
    if (key !== '' && !found.has(key))
      found.set(key, { controllers, mountPoint, own: below(own.get(key) ?? '/', unescapePath(root)) })
  }
  if (unified) return { kind: 'v2', hierarchies: [unified] }
  return { kind: found.size > 0 ? 'v1' : 'none', hierarchies: [...found.values()] }
}

/** A path of the whole hierarchy as one below the part of it that is mounted. */
function below(path: string, root: string): string {
  if (root === '/' || root.startsWith('/..')) return path
  if (path === root) return '/'
  return path.startsWith(`${root}/`) ? path.slice(root.length) : path
}

/**
 * The container's place in each hierarchy (config-linux.md, Cgroups Path): absolute from the mount point, relative to the
 * caller's own, without one by the container's id. With systemd's driver `slice:prefix:name`.
 */
export function cgroupPlace(
  cgroupsPath: string | undefined,
  id: string,
  systemd: boolean,
): { absolute: boolean; path: string } {
  if (systemd) return { absolute: true, path: systemdPath(cgroupsPath ?? '', id) }
  const path = cgroupsPath ?? ''
  if (path.split('/').includes('..')) refuse([`config.linux.cgroupsPath: ${JSON.stringify(path)} goes up`])
  if (path === '' || path === '/') return { absolute: false, path: id }
  return {
    absolute: path.startsWith('/'),
    path: path
      .split('/')
      .filter((part) => part !== '' && part !== '.')
      .join('/'),
  }
}

function systemdPath(cgroupsPath: string, id: string): string {
  const parts = cgroupsPath === '' ? ['system.slice', 'kiln', id] : cgroupsPath.split(':')
  const [slice = '', prefix = '', name = ''] = parts
  if (parts.length !== 3 || name === '' || /[/]/.test(slice + prefix + name))
    refuse([`config.linux.cgroupsPath: ${JSON.stringify(cgroupsPath)} is not slice:prefix:name`])
  const unit = name.endsWith('.slice') ? name : `${prefix === '' ? '' : `${prefix}-`}${name}.scope`
  return [...expandSlice(slice === '' ? 'system.slice' : slice), unit].join('/')
}

/** `a-b-c.slice` lies in `a.slice/a-b.slice/a-b-c.slice`. */
function expandSlice(slice: string): string[] {
  if (slice === '-.slice') return []
  if (!slice.endsWith('.slice') || slice.startsWith('-') || slice.includes('--'))
    refuse([`config.linux.cgroupsPath: ${JSON.stringify(slice)} is not a slice`])
  const parts = slice.slice(0, -'.slice'.length).split('-')
  return parts.map((_, at) => `${parts.slice(0, at + 1).join('-')}.slice`)
}

/**
 * The folder of the container in one hierarchy. Of v2 a relative place is beside the caller's own group and not below: a group with
 * processes in it hands no controllers down (cgroup-v2.rst, No Internal Process Constraint), and no process may enter one below.
 */
export function folderIn(hierarchy: Hierarchy, place: { absolute: boolean; path: string }): string {
  const { controllers, own, mountPoint } = hierarchy
  const from = controllers.length === 0 ? own.slice(0, own.lastIndexOf('/') + 1) : own
  const parts = [mountPoint, place.absolute ? '' : from, place.path]
  return `/${parts
    .flatMap((part) => part.split('/'))
    .filter((part) => part !== '')
    .join('/')}`
}
